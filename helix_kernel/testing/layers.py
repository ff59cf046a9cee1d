"""The conformance suite of layers: what every layer must do, whoever wrote it.

Subclass `LayerSuite`, give it a layer, and pytest runs the rest::

    class TestMamba(LayerSuite):
        def make_layer(self):
            return Mamba(d_model=self.d_model)
"""

from __future__ import annotations

import inspect
import itertools
import random
from functools import cached_property
from typing import TYPE_CHECKING, Any

import attrs
import pytest

from helix_kernel.testing.pytree import leaves, map_leaves
from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import EllipsisType

    import torch
    from torch import Tensor, nn

_DTYPES = ("float32", "float64")
_if_causal = applies_when("layers that do not look ahead", lambda suite: suite.traits.is_causal)
_if_it_keeps_a_state = applies_when("layers that keep a state", lambda suite: suite.traits.keeps_state)
_if_it_keeps_none = applies_when("layers without state", lambda suite: not suite.traits.keeps_state)
_if_it_packs = applies_when(
    "layers that take packed sequences (cu_seqlens)", lambda suite: suite.traits.packs
)


@attrs.frozen
class Traits:
    """What a layer says of itself, by which cases apply to it.

    Args:
        is_causal: Whether its outputs depend on no later input: it has no attribute ``causal`` that is False.
        keeps_state: Whether it is causal and has the method ``init_state``.
        packs: Whether its `forward` takes ``cu_seqlens``.
        vocab_size: Its attribute of that name, the number of ids that it takes; None for one that takes
            vectors.
    """

    is_causal: bool
    keeps_state: bool
    packs: bool
    vocab_size: int | None

    @classmethod
    def of(cls, layer: nn.Module) -> Traits:
        """Return what a layer says of itself."""
        is_causal = bool(getattr(layer, "causal", True))
        return cls(
            is_causal=is_causal,
            keeps_state=is_causal and hasattr(layer, "init_state"),
            packs="cu_seqlens" in inspect.signature(type(layer).forward).parameters,
            vocab_size=getattr(layer, "vocab_size", None),
        )


class LayerSuite(Suite):
    """Pytest class of the layer protocol (docs: "What each kind must be").

    A subclass overrides `make_layer`, and `inputs` and `output_shape` where the layer does not map
    floating (B, L, d_model) to the same shape. A layer without `init_state` keeps no state and must treat
    each position on its own; the cases about state are then skipped. One that looks ahead says so by an
    attribute ``causal = False``, and is excused from what only holds for causal layers. One whose `forward`
    takes ``cu_seqlens`` must treat packed sequences as if each came alone.

    Attributes:
        d_model: Width of the inputs that `inputs` makes.
        batch_size: Rows of the inputs; at least 3, so that rows can be dropped and reordered.
        seq_len: Their length; at least 9, so that there is a middle to cut.
        tolerance: Largest allowed difference for each dtype, relative to the largest output.
    """

    d_model = 8
    batch_size = 3
    seq_len = 13
    tolerance: dict[str, float] = {"float32": 1e-5, "float64": 1e-10}  # noqa: RUF012 - mypy wants no ClassVar here: subclasses assign it

    supplies = ("d_model",)

    @cached_property
    def traits(self) -> Traits:
        """What the layer says of itself."""
        return Traits.of(self._seeded_layer(0))

    def make_layer(self) -> nn.Module:
        """Return a new layer in float32, its weights drawn from torch's global generator."""
        layer: nn.Module = self.build(d_model=self.d_model)
        return layer

    @pytest.fixture
    def layer(self) -> nn.Module:
        """Return the layer under test, the same in every run."""
        return self._seeded_layer(0)

    def inputs(self, batch_size: int, seq_len: int, *, dtype: torch.dtype, seed: int = 0) -> Tensor:
        """Return inputs (B, L, ...) that depend on the arguments only."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        if self.traits.vocab_size is not None:
            return torch.randint(self.traits.vocab_size, (batch_size, seq_len), generator=generator)
        return torch.randn(batch_size, seq_len, self.d_model, generator=generator, dtype=dtype)

    def output_shape(self, x: Tensor) -> tuple[int | EllipsisType | None, ...]:
        """Return the shape that the output for x must have; None is a dimension of any length.

        A model that reads ids and looks ahead may give one answer (B, …) for a row.
        """
        if x.is_floating_point():
            return tuple(x.shape)
        return (*x.shape, None) if self.traits.is_causal else (len(x), ...)

    @pytest.mark.parametrize("dtype", _DTYPES)
    @pytest.mark.parametrize("seq_len", [1, 13])
    def test_output_has_the_promised_shape_and_dtype(
        self, layer: nn.Module, seq_len: int, dtype: str
    ) -> None:
        layer, x = self._prepare(layer, dtype, seq_len=seq_len)
        y = layer(x)
        assert _is_of(y.shape, self.output_shape(x)), (
            f"inputs of shape {tuple(x.shape)} gave outputs of shape {tuple(y.shape)}, "
            f"expected {self.output_shape(x)}"
        )
        assert str(y.dtype) == f"torch.{dtype}", f"a {dtype} layer gave outputs of {y.dtype}"
        assert y.isfinite().all(), "outputs for standard normal inputs are not finite"

    @_if_causal
    def test_the_future_does_not_change_the_past(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer)
        other = self.inputs(self.batch_size, self.seq_len, dtype=torch.float64, seed=1)
        y = layer(x)
        for now in range(1, self.seq_len):
            changed = layer(torch.cat([x[:, :now], other[:, now:]], dim=1))
            self._assert_close(
                changed[:, :now], y[:, :now], f"outputs before {now} changed with the inputs from {now} on"
            )

    def test_a_row_does_not_depend_on_the_other_rows(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        y = layer(x)
        for row in range(self.batch_size):
            alone = layer(x[row : row + 1])
            self._assert_close(alone, y[row : row + 1], f"row {row} alone and in a batch differ")

    def test_inputs_need_not_be_contiguous(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        strided = x.transpose(0, 1).contiguous().transpose(0, 1)
        assert not strided.is_contiguous()
        self._assert_close(layer(strided), layer(x), "outputs for a strided copy of the inputs differ")

    def test_inputs_are_not_changed(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        before = x.clone()
        layer(x)
        assert x.equal(before), "forward changed its inputs in place"

    def test_evaluation_is_deterministic(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer, "float32")
        assert layer(x).equal(layer(x)), "two calls in eval mode on the same inputs differ"

    def test_state_dict_holds_all_that_outputs_depend_on(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer, "float32")
        twin = self._seeded_layer(1).eval()
        twin.load_state_dict(layer.state_dict())
        assert twin(x).equal(layer(x)), (
            "another instance that loaded the state_dict gives other outputs: "
            "something that they depend on is not in the state_dict"
        )

    def test_gradients_reach_every_parameter(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        torch.autograd.backward(_loss(layer(x)))
        for name, parameter in layer.named_parameters():
            if not parameter.requires_grad:
                continue
            assert parameter.grad is not None, f"no gradient reached {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere"

    def test_gradients_agree_with_finite_differences(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, batch_size=2, seq_len=4)
        names, parameters = zip(*layer.named_parameters(), strict=True)
        tensors = [parameter.detach().clone().requires_grad_() for parameter in parameters]
        given = [x.requires_grad_()] if x.is_floating_point() else []

        def outputs(*values: Tensor) -> Any:
            arguments = values[len(tensors) :] or (x,)
            named = dict(zip(names, values, strict=False))
            return torch.func.functional_call(layer, named, arguments)

        # Fast mode compares along random directions: a wrong gradient of any element shows.
        assert torch.autograd.gradcheck(outputs, (*tensors, *given), fast_mode=True)

    def test_compiles_to_one_graph(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        torch.compiler.reset()  # other instances' graphs count against the recompile limit
        compiled = torch.compile(layer, fullgraph=True, backend="eager")
        self._assert_close(compiled(x), layer(x), "outputs under torch.compile differ")

    def test_exports_to_one_graph(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        program = torch.export.export(layer, (x,))
        self._assert_close(program.module()(x), layer(x), "outputs of the exported program differ")

    @_if_it_packs
    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_packed_sequences_are_as_if_each_came_alone(self, layer: nn.Module, dtype: str) -> None:
        import torch

        layer, x = self._prepare(layer, dtype, batch_size=1)
        bounds = _bounds(self.seq_len)
        y = layer(x, cu_seqlens=torch.tensor(bounds))
        alone = [layer(x[:, start:end]) for start, end in itertools.pairwise(bounds) if end > start]
        self._assert_close(y, torch.cat(alone, dim=1), f"outputs packed by {bounds} differ from alone", dtype)

    @_if_it_packs
    @_if_it_keeps_a_state
    def test_packed_chunks_go_on_from_their_own_states(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare_stateful(layer)
        lengths = [4, 0, 2][: self.batch_size]
        _, state = layer.extend(x[:, :3], layer.init_state(self.batch_size))
        packed = torch.cat([x[row, 3 : 3 + length] for row, length in enumerate(lengths)]).unsqueeze(0)
        ends = [0, *itertools.accumulate(lengths)]
        y, after = layer.extend(packed, state, cu_seqlens=torch.tensor(ends))
        for row, length in enumerate(lengths):
            own = map_leaves(lambda leaf, row=row: leaf[row : row + 1], state)
            alone, own = layer.extend(x[row : row + 1, 3 : 3 + length], own)
            self._assert_close(y[:, ends[row] : ends[row + 1]], alone, f"row {row} packed and alone differ")
            next_token = x[row : row + 1, 8]
            self._assert_close(
                layer.step(next_token, map_leaves(lambda leaf, row=row: leaf[row : row + 1], after))[0],
                layer.step(next_token, own)[0],
                f"the state of row {row} after a packed chunk differs from its own",
            )

    @_if_causal
    @_if_it_keeps_none
    def test_without_state_each_position_stands_alone(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer)
        apart = torch.cat([layer(x[:, t : t + 1]) for t in range(self.seq_len)], dim=1)
        self._assert_close(
            apart, layer(x), "positions depend on one another, yet the layer has no init_state to carry that"
        )

    @_if_it_keeps_a_state
    @pytest.mark.parametrize("dtype", _DTYPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_extend_in_any_chunks_is_forward(self, layer: Any, seed: int, dtype: str) -> None:
        layer, x = self._prepare_stateful(layer, dtype)
        lengths = _random_lengths(self.seq_len, seed)
        y, _ = _extend(layer, x, layer.init_state(self.batch_size), lengths)
        self._assert_close(y, layer(x), f"extend in chunks of {lengths} differs from forward", dtype)

    @_if_it_keeps_a_state
    @pytest.mark.parametrize("dtype", _DTYPES)
    def test_repeated_step_is_forward(self, layer: Any, dtype: str) -> None:
        layer, x = self._prepare_stateful(layer, dtype)
        y, _ = _steps(layer, x, layer.init_state(self.batch_size))
        self._assert_close(y, layer(x), "repeated step differs from forward", dtype)

    @_if_it_keeps_a_state
    def test_step_and_extend_share_one_state(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare_stateful(layer)
        first, state = _extend(layer, x[:, :5], layer.init_state(self.batch_size), [5])
        second, state = _steps(layer, x[:, 5:8], state)
        third, _ = layer.extend(x[:, 8:], state)
        y = torch.cat([first, second, third], dim=1)
        self._assert_close(y, layer(x), "extend, then step, then extend differs from forward")

    @_if_it_keeps_a_state
    def test_an_empty_chunk_changes_nothing(self, layer: Any) -> None:
        layer, x = self._prepare_stateful(layer)
        _, state = layer.extend(x[:, :5], layer.init_state(self.batch_size))
        empty, after = layer.extend(x[:, 5:5], state)
        assert _is_of(empty.shape, self.output_shape(x[:, 5:5])), "an empty chunk gave outputs"
        self._assert_states_equal(after, state, "an empty chunk changed the state")

    @_if_it_keeps_a_state
    def test_a_given_state_stays_as_it_was(self, layer: Any) -> None:
        layer, x = self._prepare_stateful(layer)
        _, state = layer.extend(x[:, :5], layer.init_state(self.batch_size))
        before = map_leaves(lambda leaf: leaf.clone(), state)
        layer.extend(x[:, 5:], state)
        self._assert_states_equal(state, before, "extend changed the given state in place")
        layer.step(x[:, 5], state)
        self._assert_states_equal(state, before, "step changed the given state in place")

    @_if_it_keeps_a_state
    def test_dimension_0_of_every_state_tensor_is_the_batch(self, layer: Any) -> None:
        layer, x = self._prepare_stateful(layer)
        start = layer.init_state(self.batch_size)
        _, after = layer.extend(x, start)
        for where, state in (("init_state", start), ("extend", after)):
            for leaf in leaves(state):
                assert leaf.shape[:1] == (self.batch_size,), (
                    f"{where} gave a state tensor of shape {tuple(leaf.shape)}; "
                    f"its dimension 0 must be the batch size {self.batch_size}"
                )

    @_if_it_keeps_a_state
    def test_initial_state_is_made_as_asked(self, layer: Any) -> None:
        import torch

        layer, _ = self._prepare_stateful(layer, "float32")
        state = layer.init_state(2, device=torch.device("cpu"), dtype=torch.float64)
        for leaf in leaves(state):
            assert leaf.device.type == "cpu", f"init_state(device=cpu) gave a tensor on {leaf.device}"
            assert not leaf.is_floating_point() or leaf.dtype == torch.float64, (
                f"init_state(dtype=float64) gave a tensor of {leaf.dtype}"
            )

    @_if_it_keeps_a_state
    def test_state_rows_can_be_dropped_and_reordered(self, layer: Any) -> None:
        layer, x = self._prepare_stateful(layer)
        _, state = layer.extend(x[:, :6], layer.init_state(self.batch_size))
        rows = [2, 0]
        y, _ = layer.extend(x[rows, 6:], map_leaves(lambda leaf: leaf[rows], state))
        self._assert_close(
            y, layer(x)[rows, 6:], f"going on with the state's rows {rows} differs from forward"
        )

    @_if_it_keeps_a_state
    def test_states_of_rows_can_be_joined(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare_stateful(layer)
        states = [
            layer.extend(x[row : row + 1, :6], layer.init_state(1))[1] for row in range(self.batch_size)
        ]
        y, _ = layer.extend(x[:, 6:], map_leaves(lambda *rows: torch.cat(rows), *states))
        self._assert_close(
            y, layer(x)[:, 6:], "going on with the joined states of single rows differs from forward"
        )

    @_if_it_keeps_a_state
    def test_gradients_flow_through_the_state(self, layer: Any) -> None:
        layer, x = self._prepare_stateful(layer)
        y, _ = _extend(layer, x, layer.init_state(self.batch_size), [6, self.seq_len - 6])
        chunked, whole = (_gradients(layer, output) for output in (y, layer(x)))
        for name, gradient in whole.items():
            self._assert_close(chunked[name], gradient, f"the gradient of {name} through two chunks differs")

    def _seeded_layer(self, seed: int) -> nn.Module:
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.make_layer()

    def _prepare(
        self,
        layer: nn.Module,
        dtype: str = "float64",
        *,
        batch_size: int | None = None,
        seq_len: int | None = None,
    ) -> tuple[Any, Tensor]:
        """Return the layer in eval mode and the dtype, and inputs for it."""
        import torch

        kind: torch.dtype = getattr(torch, dtype)
        x = self.inputs(batch_size or self.batch_size, seq_len or self.seq_len, dtype=kind)
        return layer.to(kind).eval(), x

    def _prepare_stateful(self, layer: nn.Module, dtype: str = "float64") -> tuple[Any, Tensor]:
        return self._prepare(layer, dtype)

    def _assert_close(self, actual: Tensor, expected: Tensor, message: str, dtype: str = "") -> None:
        allowed = self.tolerance[dtype or str(expected.dtype).removeprefix("torch.")]
        if expected.numel() == actual.numel() == 0:
            return
        scale = max(expected.abs().max().item(), 1e-30)
        error = (actual - expected).abs().amax().item() / scale
        # A comparison with NaN is false, so a NaN fails too.
        assert error <= allowed, f"{message}: by {error:.1e} of the largest output, allowed {allowed:.0e}"

    def _assert_states_equal(self, actual: Any, expected: Any, message: str) -> None:
        for one, other in zip(leaves(actual), leaves(expected), strict=True):
            assert one.equal(other), message


def _is_of(shape: Sequence[int], promised: Sequence[int | EllipsisType | None]) -> bool:
    """Whether a shape is the promised one, in which None stands for any length and … for any further ones."""
    if promised[-1:] == (...,):
        return _is_of(shape[: len(promised) - 1], promised[:-1])
    return len(shape) == len(promised) and all(
        want in (None, have) for have, want in zip(shape, promised, strict=True)
    )


def _bounds(seq_len: int) -> list[int]:
    """Return bounds of packed sequences of which one is empty and one a single token."""
    return [0, 1, seq_len // 2, seq_len // 2, seq_len]


def _random_lengths(seq_len: int, seed: int) -> list[int]:
    """Return lengths of chunks that add up to seq_len; equal cuts make an empty chunk."""
    cuts = sorted(random.Random(seed).choices(range(seq_len + 1), k=4))  # noqa: S311 - no secret
    return [end - start for start, end in itertools.pairwise([0, *cuts, seq_len])]


def _extend(layer: Any, x: Tensor, state: Any, lengths: Iterable[int]) -> tuple[Tensor, Any]:
    """Run the layer over x in chunks of the given lengths."""
    import torch

    outputs = []
    for chunk in torch.split(x, list(lengths), dim=1):
        y, state = layer.extend(chunk, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def _steps(layer: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
    """Run the layer over x token by token."""
    import torch

    outputs = []
    for t in range(x.shape[1]):
        y, state = layer.step(x[:, t], state)
        outputs.append(y)
    return torch.stack(outputs, dim=1), state


def _loss(y: Tensor) -> Tensor:
    """Return a scalar that weighs every output differently, so that no gradient cancels by symmetry."""
    import torch

    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype, device=y.device).view_as(y)
    return (weights * y).sum() + y.square().mean()


def _gradients(layer: nn.Module, y: Tensor) -> dict[str, Tensor]:
    import torch

    names, parameters = zip(*layer.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(_loss(y), parameters), strict=True))
