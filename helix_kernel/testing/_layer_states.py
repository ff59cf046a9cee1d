"""The cases of layers that keep a state, and of those that take packed sequences."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.testing._layer_basis import (
    DTYPES,
    LayerBasis,
    if_causal,
    if_it_keeps_a_state,
    if_it_keeps_none,
    if_it_packs,
    is_of,
    weighed,
)
from helix_kernel.testing.pytree import leaves, map_leaves

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

_START = "state = layer.init_state(len(x), dtype=x.dtype)"
_FIVE = "y, state = layer.extend(x[:, :5], layer.init_state(len(x), dtype=x.dtype))"


class StateCases(LayerBasis):
    """What a state must be, and that forward, extend and step agree; see `LayerSuite`."""

    @if_it_packs
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_packed_sequences_are_as_if_each_came_alone(self, layer: nn.Module, dtype: str) -> None:
        import torch

        layer, x = self._prepare(layer, dtype, batch_size=1)
        bounds = _bounds(self.seq_len)
        y = self.run(layer, x, cu_seqlens=torch.tensor(bounds))
        alone = [layer(x[:, start:end]) for start, end in itertools.pairwise(bounds) if end > start]
        self.assert_close(
            y,
            torch.cat(alone, dim=1),
            f"outputs packed by cu_seqlens={bounds} differ from those of each sequence alone",
            f"y = layer(x[:1], cu_seqlens=torch.tensor({bounds}))",
            f"y[:, {bounds[1]}:{bounds[2]}] - layer(x[:1, {bounds[1]}:{bounds[2]}])",
        )

    @if_it_packs
    @if_it_keeps_a_state
    def test_packed_chunks_go_on_from_their_own_states(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare(layer)
        lengths = [4, 0, 2][: self.batch_size]
        _, state = layer.extend(x[:, :3], layer.init_state(self.batch_size))
        packed = torch.cat([x[row, 3 : 3 + length] for row, length in enumerate(lengths)]).unsqueeze(0)
        ends = [0, *itertools.accumulate(lengths)]
        y, after = layer.extend(packed, state, cu_seqlens=torch.tensor(ends))
        see = (_FIVE, f"layer.extend(packed, state, cu_seqlens=torch.tensor({ends}))")
        for row, length in enumerate(lengths):
            own = _row(state, row)
            alone, own = layer.extend(x[row : row + 1, 3 : 3 + length], own)
            self.assert_close(
                y[:, ends[row] : ends[row + 1]], alone, f"row {row} of a packed chunk and alone differ", *see
            )
            next_token = x[row : row + 1, 8]
            self.assert_close(
                layer.step(next_token, _row(after, row))[0],
                layer.step(next_token, own)[0],
                f"the state of row {row} after a packed chunk differs from its own",
                *see,
            )

    @if_causal
    @if_it_keeps_none
    def test_without_state_each_position_stands_alone(self, layer: nn.Module) -> None:
        import torch

        layer, x = self._prepare(layer)
        apart = torch.cat([self.run(layer, x[:, t : t + 1]) for t in range(self.seq_len)], dim=1)
        self.assert_close(
            apart,
            layer(x),
            "positions one by one differ from all at once, yet the layer has no init_state, extend and "
            "step to carry what they need from one another",
            "torch.cat([layer(x[:, t:t + 1]) for t in range(x.shape[1])], dim=1) - layer(x)",
        )

    @if_it_keeps_a_state
    @pytest.mark.parametrize("dtype", DTYPES)
    @pytest.mark.parametrize("seed", range(3))
    def test_extend_in_any_chunks_is_forward(self, layer: Any, seed: int, dtype: str) -> None:
        layer, x = self._prepare(layer, dtype)
        lengths = _random_lengths(self.seq_len, seed)
        y, _ = _extend(layer, x, layer.init_state(self.batch_size), lengths)
        self.assert_close(
            y,
            layer(x),
            f"extend in chunks of {lengths} differs from forward",
            _FIVE,
            "layer.extend(x[:, 5:], state)[0] - layer(x)[:, 5:]",
        )

    @if_it_keeps_a_state
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_repeated_step_is_forward(self, layer: Any, dtype: str) -> None:
        layer, x = self._prepare(layer, dtype)
        y, _ = _steps(layer, x, layer.init_state(self.batch_size))
        self.assert_close(
            y,
            layer(x),
            "repeated step differs from forward",
            _START,
            "for t in range(x.shape[1]):",
            "    y_t, state = layer.step(x[:, t], state)",
            "    print(t, (y_t - layer(x)[:, t]).abs().max())",
        )

    @if_it_keeps_a_state
    def test_step_and_extend_share_one_state(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare(layer)
        first, state = _extend(layer, x[:, :5], layer.init_state(self.batch_size), [5])
        second, state = _steps(layer, x[:, 5:8], state)
        third, _ = layer.extend(x[:, 8:], state)
        self.assert_close(
            torch.cat([first, second, third], dim=1),
            layer(x),
            "extend of 5 tokens, then step for 3, then extend differs from forward",
            _FIVE,
            "layer.step(x[:, 5], state)[0] - layer(x)[:, 5]",
        )

    @if_it_keeps_a_state
    def test_an_empty_chunk_changes_nothing(self, layer: Any) -> None:
        layer, x = self._prepare(layer)
        _, state = layer.extend(x[:, :5], layer.init_state(self.batch_size))
        empty, after = layer.extend(x[:, 5:5], state)
        see = self.see_layer(_FIVE, "layer.extend(x[:, 5:5], state)")
        expected = self.output_shape(x[:, 5:5])
        assert is_of(empty.shape, expected), (
            f"an empty chunk gives outputs of shape {tuple(empty.shape)}, expected {expected}{see}"
        )
        _assert_states_equal(after, state, f"an empty chunk changes the state{see}")

    @if_it_keeps_a_state
    def test_a_given_state_stays_as_it_was(self, layer: Any) -> None:
        layer, x = self._prepare(layer)
        _, state = layer.extend(x[:, :5], layer.init_state(self.batch_size))
        before = map_leaves(lambda leaf: leaf.clone(), state)
        for name, call in (("extend", "extend(x[:, 5:], state)"), ("step", "step(x[:, 5], state)")):
            getattr(layer, name)(x[:, 5:] if name == "extend" else x[:, 5], state)
            see = self.see_layer(_FIVE, "before = copy.deepcopy(state)", f"layer.{call}", "before, state")
            _assert_states_equal(state, before, f"{name} changes the given state in place{see}")

    @if_it_keeps_a_state
    def test_dimension_0_of_every_state_tensor_is_the_batch(self, layer: Any) -> None:
        layer, x = self._prepare(layer)
        start = layer.init_state(self.batch_size)
        _, after = layer.extend(x, start)
        for where, state in (("init_state", start), ("extend", after)):
            for leaf in leaves(state):
                assert leaf.shape[:1] == (self.batch_size,), (
                    f"{where} gives a state tensor of shape {tuple(leaf.shape)}; its dimension 0 must be the "
                    f"batch size {self.batch_size}, so that rows can be gathered, dropped and joined"
                    + self.see_layer(_START, "state")
                )

    @if_it_keeps_a_state
    def test_initial_state_is_made_as_asked(self, layer: Any) -> None:
        import torch

        layer, _ = self._prepare(layer, "float32")
        see = self.see_layer('layer.init_state(2, device=torch.device("cpu"), dtype=torch.float64)')
        state = layer.init_state(2, device=torch.device("cpu"), dtype=torch.float64)
        for leaf in leaves(state):
            assert leaf.device.type == "cpu", f"init_state(device=cpu) gives a tensor on {leaf.device}{see}"
            assert not leaf.is_floating_point() or leaf.dtype == torch.float64, (
                f"init_state(dtype=float64) gives a tensor of {leaf.dtype}{see}"
            )

    @if_it_keeps_a_state
    def test_state_rows_can_be_dropped_and_reordered(self, layer: Any) -> None:
        layer, x = self._prepare(layer)
        _, state = layer.extend(x[:, :6], layer.init_state(self.batch_size))
        rows = [2, 0]
        y, _ = layer.extend(x[rows, 6:], map_leaves(lambda leaf: leaf[rows], state))
        self.assert_close(
            y,
            layer(x)[rows, 6:],
            f"going on with rows {rows} of the state differs from forward: each row of a state must belong "
            "to its own row of the batch",
            _FIVE,
            "state = map_leaves(lambda leaf: leaf[[2, 0]], state)  # of helix_kernel.testing.pytree",
            "layer.extend(x[[2, 0], 5:], state)[0] - layer(x)[[2, 0], 5:]",
        )

    @if_it_keeps_a_state
    def test_states_of_rows_can_be_joined(self, layer: Any) -> None:
        import torch

        layer, x = self._prepare(layer)
        states = [
            layer.extend(x[row : row + 1, :6], layer.init_state(1))[1] for row in range(self.batch_size)
        ]
        y, _ = layer.extend(x[:, 6:], map_leaves(lambda *rows: torch.cat(rows), *states))
        self.assert_close(
            y,
            layer(x)[:, 6:],
            "going on with the joined states of single rows differs from forward",
            "states = [layer.extend(r, layer.init_state(1, dtype=x.dtype))[1] for r in x[:, :6].split(1)]",
            "state = map_leaves(lambda *rows: torch.cat(rows), *states)  # of helix_kernel.testing.pytree",
            "layer.extend(x[:, 6:], state)[0] - layer(x)[:, 6:]",
        )

    @if_it_keeps_a_state
    def test_gradients_flow_through_the_state(self, layer: Any) -> None:
        layer, x = self._prepare(layer)
        y, _ = _extend(layer, x, layer.init_state(self.batch_size), [6, self.seq_len - 6])
        chunked, whole = (_gradients(layer, output) for output in (y, layer(x)))
        for name, gradient in whole.items():
            self.assert_close(
                chunked[name],
                gradient,
                f"the gradient of {name} through two chunks differs from forward's; is the state detached?",
                _FIVE,
                "[leaf.requires_grad for leaf in leaves(state)]  # leaves: of helix_kernel.testing.pytree",
            )


def _row(state: Any, row: int) -> Any:
    return map_leaves(lambda leaf: leaf[row : row + 1], state)


def _assert_states_equal(actual: Any, expected: Any, message: str) -> None:
    for one, other in zip(leaves(actual), leaves(expected), strict=True):
        assert one.equal(other), message


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


def _gradients(layer: nn.Module, y: Tensor) -> dict[str, Tensor]:
    import torch

    names, parameters = zip(*layer.named_parameters(), strict=True)
    return dict(zip(names, torch.autograd.grad(weighed(y), parameters), strict=True))
