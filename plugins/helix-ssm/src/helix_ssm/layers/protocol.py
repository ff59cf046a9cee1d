"""What a layer with memory offers, and how a stack drives layers with and without one."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from helix_kernel.errors import ArgumentError
from helix_ssm.ops._check import segments

if TYPE_CHECKING:
    from collections.abc import Sequence

State = Any
"""A pytree (tuples, dicts) of tensors whose dimension 0 is the batch; `()` where nothing is kept."""


class StatefulLayer(Protocol):
    """A causal layer that can go on from where it stopped.

    `forward(x)`, `extend` over any chunking of x and repeated `step` give the same outputs. A state is
    never changed in place: the one given stays valid.

    `forward` and `extend` may also take ``cu_seqlens``, the bounds (n + 1,) int64 of n sequences that lie
    end to end in one row x (1, T, D): each is treated as if it came alone, and a state has n rows. A layer
    whose `forward` does not name that argument is run on one sequence after the other.
    """

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """Return the state before the first token, on the parameters' device and dtype by default."""
        ...

    def extend(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map a chunk x (B, L, D) of any length that follows `state` to (B, L, D) and the next state."""
        ...

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        ...


def without_weight_decay(parameter: nn.Parameter) -> nn.Parameter:
    """Mark a parameter, such as a recurrence's A or D, that decaying towards zero would distort.

    The mark is the attribute ``_no_weight_decay``, as in published state-space models; trainers
    that decay weights look for it.
    """
    parameter._no_weight_decay = True  # type: ignore[attr-defined]  # noqa: SLF001 - the field's name
    return parameter


def is_stateful(layer: nn.Module) -> bool:
    """Whether the layer keeps a state. A causal one that keeps none treats each position on its own."""
    return hasattr(layer, "init_state") and not looks_ahead(layer)


def looks_ahead(layer: nn.Module) -> bool:
    """Whether tokens depend on later ones: the layer's ``causal`` is False. Such a layer keeps no state."""
    return not getattr(layer, "causal", True)


def init_state(
    layer: nn.Module,
    batch_size: int,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> State:
    """Return the layer's initial state, `()` for a layer that keeps none.

    Raises:
        ArgumentError: The layer looks ahead.
    """
    _check_causal(layer)
    if not is_stateful(layer):
        return ()
    return cast("StatefulLayer", layer).init_state(batch_size, device=device, dtype=dtype)


def forward(layer: nn.Module, x: Tensor, cu_seqlens: Tensor | None = None) -> Tensor:
    """Run the layer on whole sequences x (B, L, D), or on sequences packed into one row (1, T, D)."""
    if cu_seqlens is None or not (is_stateful(layer) or looks_ahead(layer)):
        return cast("Tensor", layer(x))
    if packs(layer):
        return cast("Tensor", layer(x, cu_seqlens=cu_seqlens))
    return torch.cat([layer(x[:, start:end]) for start, end in segments(cu_seqlens, x.shape[1])], dim=1)


def extend(
    layer: nn.Module, x: Tensor, state: State, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, State]:
    """Run the layer on a chunk x (B, L, D) that follows `state`, or on packed chunks (1, T, D)."""
    _check_causal(layer)
    if not is_stateful(layer):
        return layer(x), state
    stateful = cast("StatefulLayer", layer)
    if cu_seqlens is None:
        return stateful.extend(x, state)
    if packs(layer):
        y, state = stateful.extend(x, state, cu_seqlens=cu_seqlens)  # type: ignore[call-arg]  # optional
        return y, state
    outputs, states = [], []
    for row, (start, end) in enumerate(segments(cu_seqlens, x.shape[1])):
        own = tree_map(lambda leaf, row=row: leaf[row : row + 1], state)
        y, own = stateful.extend(x[:, start:end], own)
        outputs.append(y)
        states.append(own)
    return torch.cat(outputs, dim=1), join(states)


def packs(layer: nn.Module) -> bool:
    """Whether the layer itself takes sequences packed into one row, by the argument ``cu_seqlens``."""
    return "cu_seqlens" in inspect.signature(type(layer).forward).parameters


def join(states: Sequence[State]) -> State:
    """Return one state whose rows are those of the given ones, in order.

    A class of state that can join rows of unequal lengths has a static method ``join_rows``.

    Raises:
        ArgumentError: The states grow with what their rows have seen, and the rows have seen unequally much.
    """
    try:
        return tree_map(_join, *states, is_leaf=_joins_itself)
    except (RuntimeError, ValueError) as error:
        raise ArgumentError(
            "these states cannot be joined: their rows have seen unequally many tokens, and the layer's "
            f"state grows with every token ({error})"
        ) from error


def step(layer: nn.Module, x_t: Tensor, state: State) -> tuple[Tensor, State]:
    """Run the layer on one token x_t (B, D) that follows `state`."""
    _check_causal(layer)
    if not is_stateful(layer):
        return layer(x_t.unsqueeze(1)).squeeze(1), state
    return cast("StatefulLayer", layer).step(x_t, state)


def check_chunk(layer: str, x: Tensor, d_model: int) -> None:
    """Raise `ArgumentError` unless x is a floating (B, L, d_model)."""
    if x.dim() != 3 or x.shape[-1] != d_model or not x.is_floating_point():
        raise ArgumentError(
            f"{layer}: x has shape {tuple(x.shape)} and dtype {x.dtype}, "
            f"allowed is a floating (B, L, d_model={d_model})"
        )


def check_ids(model: str, ids: Tensor, *, n_dims: int = 2) -> None:
    """Raise `ArgumentError` unless ids are int64 (B, L) or, with n_dims = 1, (B,)."""
    if ids.dim() != n_dims or ids.dtype != torch.int64:
        shape = "(B, L)" if n_dims == 2 else "(B,)"
        raise ArgumentError(
            f"{model}: ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, allowed is int64 {shape}"
        )


def check_at_least(layer: str, name: str, value: float, minimum: float) -> None:
    """Raise `ArgumentError` where an argument of a layer's constructor is below its minimum."""
    if not value >= minimum:
        raise ArgumentError(f"{layer}: {name} is {value!r}, allowed is >= {minimum:g}")


def at_least_float32(x: Tensor) -> Tensor:
    """Return x in float32, or in float64 where it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def full_precision(like: Tensor) -> torch.autocast:
    """Return a context in which autocast leaves `like`'s device alone, for sums that bfloat16 would spoil."""
    return torch.autocast(like.device.type, enabled=False)


def _join(*rows: Any) -> State:
    return type(rows[0]).join_rows(rows) if _joins_itself(rows[0]) else torch.cat(rows)


def _joins_itself(state: State) -> bool:
    return hasattr(type(state), "join_rows")


def _check_causal(layer: nn.Module) -> None:
    if looks_ahead(layer):
        raise ArgumentError(
            f"{type(layer).__name__} looks ahead, so that no state can be kept: allowed are causal layers"
        )
