"""The conformance suite of layers: what every layer must do, whoever wrote it.

Subclass `LayerSuite`, give it a layer, and pytest runs the rest::

    class TestMamba(LayerSuite):
        def make_layer(self):
            return Mamba(d_model=self.d_model)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helix_kernel.testing._layer_basis import DTYPES, Traits, if_causal, is_of, weighed
from helix_kernel.testing._layer_examples import ExampleCases
from helix_kernel.testing._layer_states import StateCases

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LayerSuite", "Traits"]


class LayerSuite(ExampleCases, StateCases):
    """Pytest class of the layer protocol (docs: "What each kind must be").

    A subclass overrides `make_layer`, and `inputs` and `output_shape` where the layer does not map
    floating (B, L, d_model) to the same shape, or ids (B, L) below its attribute ``vocab_size`` to logits
    (B, L, V). A layer without `init_state` keeps no state and must treat each position on its own; the cases
    about state are then left out. One that looks ahead says so by an attribute ``causal = False``, and is
    excused from what only holds for causal layers. One whose `forward` takes ``cu_seqlens`` must treat
    packed sequences as if each came alone.

    A model that takes neither, such as several kinds of data by name, has a method
    ``example_inputs(batch_size, *, seed)`` which returns what its `forward` takes, a tree of tensors; its
    cases are those of examples.

    Attributes:
        d_model: Width of the inputs that `inputs` makes.
        batch_size: Rows of the inputs; at least 3, so that rows can be dropped and reordered.
        seq_len: Their length; at least 9, so that there is a middle to cut.
        tolerance: Largest allowed difference for each dtype, relative to the largest output.
    """

    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("seq_len", [1, 12, 13])
    def test_output_has_the_promised_shape_and_dtype(
        self, layer: nn.Module, seq_len: int, dtype: str
    ) -> None:
        layer, x = self._prepare(layer, dtype, seq_len=seq_len)
        y = self.run(layer, x)
        see = self.see_layer(f"layer(x[:, :{seq_len}])", dtype=dtype)
        assert is_of(y.shape, self.output_shape(x)), (
            f"inputs of shape {tuple(x.shape)} give outputs of shape {tuple(y.shape)}, "
            f"expected {self.output_shape(x)}{see}"
        )
        assert str(y.dtype) == f"torch.{dtype}", f"a {dtype} layer gives outputs of {y.dtype}{see}"
        n_bad = int((~y.isfinite()).sum())
        assert not n_bad, (
            f"{n_bad} of {y.numel()} outputs are not finite, for inputs of shape {tuple(x.shape)}{see}"
        )

    @if_causal
    def test_the_future_does_not_change_the_past(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer)
        other = self.inputs(self.batch_size, self.seq_len, dtype=torch.float64, seed=1)
        y = self.run(layer, x)
        for now in range(1, self.seq_len):
            changed = layer(torch.cat([x[:, :now], other[:, now:]], dim=1))
            self.assert_close(
                changed[:, :now],
                y[:, :now],
                f"outputs before {now} change with the inputs from {now} on, so the layer looks ahead (one "
                "that means to says so by causal = False)",
                f"changed = torch.cat([x[:, :{now}], x[:, {now}:].flip(0)], dim=1)",
                f"(layer(changed) - layer(x))[:, :{now}]  # should be 0",
            )

    @if_causal
    def test_a_shorter_sequence_gives_the_same_outputs(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        y = self.run(layer, x)
        for length in range(1, self.seq_len):
            self.assert_close(
                self.run(layer, x[:, :length]),
                y[:, :length],
                f"the first {length} of {self.seq_len} tokens alone give other outputs than in the whole; "
                "is something wrong at this length, odd or even?",
                f"layer(x[:, :{length}]) - layer(x)[:, :{length}]",
            )

    def test_a_row_does_not_depend_on_the_other_rows(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        y = self.run(layer, x)
        for row in range(self.batch_size):
            self.assert_close(
                self.run(layer, x[row : row + 1]),
                y[row : row + 1],
                f"row {row} alone and in a batch of {self.batch_size} differ",
                f"layer(x[{row}:{row + 1}]) - layer(x)[{row}:{row + 1}]",
            )

    def test_inputs_need_not_be_contiguous(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        strided = x.transpose(0, 1).contiguous().transpose(0, 1)
        assert not strided.is_contiguous()
        copy = "strided = x.transpose(0, 1).contiguous().transpose(0, 1)"
        try:
            y = self.run(layer, strided)
        except RuntimeError as error:
            raise AssertionError(
                f"inputs that are not contiguous are refused, use .reshape or .contiguous(): {error}"
                + self.see_layer(copy, "layer(strided)")
            ) from error
        self.assert_close(
            y, layer(x), "outputs for a strided copy of the inputs differ", copy, "layer(strided) - layer(x)"
        )

    def test_inputs_are_not_changed(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer)
        before = x.clone()
        self.run(layer, x)
        assert x.equal(before), "forward changes its inputs in place, which others may still need" + (
            self.see_layer("before = x.clone()", "layer(x)", "x - before")
        )

    def test_evaluation_is_deterministic(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer, "float32")
        first, second = self.run(layer, x), layer(x)
        assert first.equal(second), (
            f"two calls in eval mode on the same inputs differ by {(first - second).abs().max().item():.1e}; "
            "is something random or remembered?" + self.see_layer("layer(x) - layer(x)", dtype="float32")
        )

    def test_state_dict_holds_all_that_outputs_depend_on(self, layer: nn.Module) -> None:
        layer, x = self._prepare(layer, "float32")
        twin = self._seeded_layer(1).eval()
        twin.load_state_dict(layer.state_dict())
        difference = (self.run(twin, x) - layer(x)).abs().max().item()
        assert not difference, (
            f"another instance that loaded the state_dict gives outputs that differ by {difference:.1e}: "
            "something that they depend on is not in the state_dict (use nn.Parameter or register_buffer)"
            + self.see_layer(
                "twin = copy.deepcopy(layer).apply(lambda m: getattr(m, 'reset_parameters', int)())",
                "layer.state_dict().keys()",
                dtype="float32",
            )
        )

    def test_float64_is_computed_in_float64(self, layer: nn.Module) -> None:
        """Half the step bends a smooth layer's outputs a quarter as much; what float32 rounds stays."""
        layer, x = self._prepare(layer)
        whole, half = (_bend(layer, x, step) for step in (1e-7, 5e-8))
        assert whole <= 1e-10 or half <= 0.4 * whole, (
            f"moving inputs and weights by 1e-7 to either side bends outputs by {whole:.1e} of the largest, "
            f"and by 5e-8 by {half:.1e}, where a smooth layer's bend a quarter as much: a float64 layer "
            "rounds to float32 somewhere inside (.float(), a buffer, a cast), which hides faults from other "
            "cases"
            + self.see_layer("(layer(x).float().double() - layer(x)).abs().max()  # 0 where it is rounded")
        )

    def test_gradients_reach_every_parameter(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        torch.autograd.backward(weighed(self.run(layer, x)))
        for name, parameter in layer.named_parameters():
            if not parameter.requires_grad:
                continue
            see = self.see_layer(
                "layer(x).square().sum().backward()", f"layer.get_parameter({name!r}).grad", dtype="float32"
            )
            assert parameter.grad is not None, f"no gradient reaches {name}: is it used?{see}"
            n_bad = int((~parameter.grad.isfinite()).sum())
            assert not n_bad, f"{n_bad} elements of the gradient of {name} are not finite{see}"
            assert parameter.grad.any(), f"the gradient of {name} is zero everywhere: is it used?{see}"

    def test_gradients_agree_with_finite_differences(self, layer: nn.Module) -> None:
        """A random direction of each tensor is enough: a wrong gradient of any element shows along it."""
        import torch

        layer, x = self._prepare(layer, batch_size=2, seq_len=4)
        places = dict(layer.named_parameters()) | ({"the inputs": x} if x.is_floating_point() else {})
        places = {name: value.detach().clone().requires_grad_() for name, value in places.items()}

        def scalar(**moved: Tensor) -> Tensor:
            at = places | moved
            return weighed(torch.func.functional_call(layer, at, at.pop("the inputs", x)))

        here, generator = scalar(), torch.Generator().manual_seed(3)
        gradients = torch.autograd.grad(here, [*places.values()], allow_unused=True, materialize_grads=True)
        for (name, value), gradient in zip(places.items(), gradients, strict=True):
            move = 1e-6 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
            with torch.no_grad():
                change = (scalar(**{name: value + move}) - scalar(**{name: value - move})).item() / 2
            told = (gradient.conj() * move).sum().real.item()
            # What float64 rounds in the two scalars is less than the second term.
            allowed = 1e-5 * (gradient.norm() * 1e-6).item() + 1e-13 * max(1.0, abs(here.item()))
            assert abs(change - told) <= allowed, (
                f"backward is not the derivative of forward: moving {name} by 1e-6 in a random direction "
                f"changes a weighted sum of outputs by {change:.6e}, where its gradient says {told:.6e}"
                + self.see_layer("torch.autograd.gradcheck(layer, (x.requires_grad_(),), fast_mode=True)")
            )

    def test_compiles_to_one_graph(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        see = "torch.compile(layer, fullgraph=True, backend='eager')(x)"
        torch.compiler.reset()  # other instances' graphs count against the recompile limit
        try:
            y = torch.compile(layer, fullgraph=True, backend="eager")(x)
        except Exception as error:
            error.add_note("torch.compile does not get one graph" + self.see_layer(see, dtype="float32"))
            raise
        self.assert_close(y, layer(x), "outputs under torch.compile differ", f"{see} - layer(x)")

    def test_exports_to_one_graph(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer, "float32")
        see = "torch.export.export(layer, (x,)).module()(x)"
        try:
            y = torch.export.export(layer, (x,)).module()(x)
        except Exception as error:
            error.add_note("torch.export does not get one graph" + self.see_layer(see, dtype="float32"))
            raise
        self.assert_close(y, layer(x), "outputs of the exported program differ", f"{see} - layer(x)")


def _bend(layer: nn.Module, x: Tensor, step: float) -> float:
    """Return the largest second difference of outputs, over the largest output, for a random move.

    Args:
        layer: What is run.
        x: Inputs; ids stay where they are.
        step: Size of the move of each input and weight, of which the bend of a smooth layer is the square.
    """
    import torch

    generator = torch.Generator().manual_seed(2)

    def moved(value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return torch.zeros_like(value)
        return step * torch.randn(value.shape, generator=generator, dtype=value.dtype)

    weights = {name: weight.detach() for name, weight in layer.named_parameters()}
    moves, x_move = {name: moved(weight) for name, weight in weights.items()}, moved(x)

    def at(sign: int) -> Tensor:
        named = {name: weight + sign * moves[name] for name, weight in weights.items()}
        y: Tensor = torch.func.functional_call(layer, named, x + sign * x_move)
        return y.detach()

    before, here, after = at(-1), at(0), at(1)
    bend: float = ((before - here) + (after - here)).abs().max().item()
    return bend / max(here.abs().max().item(), 1e-30)
