"""What a layer with memory offers, and how a stack drives layers with and without one."""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError

State = Any
"""A pytree (tuples, dicts) of tensors whose dimension 0 is the batch; `()` where nothing is kept."""


class StatefulLayer(Protocol):
    """A causal layer that can go on from where it stopped.

    `forward(x)`, `extend` over any chunking of x and repeated `step` give the same outputs. A state is
    never changed in place: the one given stays valid.
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
    """Whether the layer keeps a state. One that keeps none treats each position on its own."""
    return hasattr(layer, "init_state")


def init_state(
    layer: nn.Module,
    batch_size: int,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> State:
    """Return the layer's initial state, `()` for a layer that keeps none."""
    if not is_stateful(layer):
        return ()
    return cast("StatefulLayer", layer).init_state(batch_size, device=device, dtype=dtype)


def extend(layer: nn.Module, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Run the layer on a chunk x (B, L, D) that follows `state`."""
    if not is_stateful(layer):
        return layer(x), state
    return cast("StatefulLayer", layer).extend(x, state)


def step(layer: nn.Module, x_t: Tensor, state: State) -> tuple[Tensor, State]:
    """Run the layer on one token x_t (B, D) that follows `state`."""
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
