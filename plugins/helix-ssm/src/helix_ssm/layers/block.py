"""The residual block that language models stack: a mixer and an optional channel layer, each pre-norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_ssm.layers import protocol

if TYPE_CHECKING:
    from helix_ssm.layers.protocol import State

LayerFactory = Callable[..., nn.Module]
"""Builds one layer when called with ``d_model=…``."""


class Block(nn.Module):
    """One pre-norm residual block: a mixer along the sequence and, optionally, a channel layer.

    Args:
        d_model: Width D of the residual stream.
        mixer: Builds the layer along the sequence.
        channel: Builds the layer across channels; None for none.
        norm: Builds the norm before each.
        dropout: Probability that an element of a layer's output is dropped in training.
    """

    def __init__(
        self,
        d_model: int,
        *,
        mixer: LayerFactory,
        channel: LayerFactory | None,
        norm: LayerFactory,
        dropout: float,
    ) -> None:
        super().__init__()
        self.mixer_norm = norm(d_model=d_model)
        self.mixer = mixer(d_model=d_model)
        self.channel_norm = None if channel is None else norm(d_model=d_model)
        self.channel = None if channel is None else channel(d_model=d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or rows packed into (1, T, D), to the same shape."""
        x = x + self.dropout(protocol.forward(self.mixer, self.mixer_norm(x), cu_seqlens))
        if self.channel is not None and self.channel_norm is not None:
            x = x + self.dropout(protocol.forward(self.channel, self.channel_norm(x), cu_seqlens))
        return x

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[State, State]:
        """Return the state before the first token: the mixer's and the channel layer's."""
        layers = (self.mixer, self.channel)
        mixer, channel = (
            () if layer is None else protocol.init_state(layer, batch_size, device=device, dtype=dtype)
            for layer in layers
        )
        return mixer, channel

    def extend(
        self, x: Tensor, state: tuple[State, State], *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, State]]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        return self._run(partial(protocol.extend, cu_seqlens=cu_seqlens), x, state)

    def step(self, x_t: Tensor, state: tuple[State, State]) -> tuple[Tensor, tuple[State, State]]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        return self._run(protocol.step, x_t, state)

    def _run(
        self,
        run: Callable[[nn.Module, Tensor, State], tuple[Tensor, State]],
        x: Tensor,
        state: tuple[State, State],
    ) -> tuple[Tensor, tuple[State, State]]:
        mixer_state, channel_state = state
        y, mixer_state = run(self.mixer, run(self.mixer_norm, x, ())[0], mixer_state)
        x = x + self.dropout(y)
        if self.channel is not None and self.channel_norm is not None:
            y, channel_state = run(self.channel, run(self.channel_norm, x, ())[0], channel_state)
            x = x + self.dropout(y)
        return x, (mixer_state, channel_state)
