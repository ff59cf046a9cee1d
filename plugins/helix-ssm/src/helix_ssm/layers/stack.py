"""A stack of residual blocks: the trunk that language models and encoders share."""

from __future__ import annotations

import math
from itertools import cycle, islice
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import protocol
from helix_ssm.layers.block import Block, LayerFactory
from helix_ssm.layers.protocol import State, check_at_least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


class Stack(nn.Module):
    """Residual blocks, one after the other; block i's parameters are named ``i.…``.

    Args:
        d_model: Width D of the residual stream.
        mixers: Builds the layer along the sequence of each block, in order.
        channel: Builds each block's second layer, across channels; None for none.
        norm: Builds the norm before each layer.
        dropout: Probability that an element of a layer's output is dropped in training.

    Raises:
        ArgumentError: dropout is not in [0, 1).
    """

    def __init__(
        self,
        d_model: int,
        *,
        mixers: Sequence[LayerFactory],
        channel: LayerFactory | None,
        norm: LayerFactory,
        dropout: float,
    ) -> None:
        if not 0 <= dropout < 1:
            raise ArgumentError(f"dropout is {dropout!r}, allowed is >= 0 and < 1")
        super().__init__()
        # No nn.ModuleList: its `extend` means another thing.
        for i, mixer in enumerate(mixers):
            block = Block(d_model, mixer=mixer, channel=channel, norm=norm, dropout=dropout)
            self.add_module(str(i), block)
        self._checkpointing = False
        self._scale_output_maps(n_residuals=len(mixers) * (1 if channel is None else 2))

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Block]:
        return (cast("Block", block) for block in self.children())

    def __getitem__(self, index: int) -> Block:
        return list(self)[index]

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or rows packed into (1, T, D), to the same shape."""
        checkpointing = self._checkpointing and self.training and torch.is_grad_enabled()
        for block in self:
            if checkpointing:
                x = checkpoint(block, x, cu_seqlens=cu_seqlens, use_reentrant=False)
            else:
                x = block(x, cu_seqlens=cu_seqlens)
        return x

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[State, ...]:
        """Return the state before the first token: one state for each block."""
        return tuple(protocol.init_state(block, batch_size, device=device, dtype=dtype) for block in self)

    def extend(
        self, x: Tensor, state: tuple[State, ...], *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        return self._run(lambda block, x, own: block.extend(x, own, cu_seqlens=cu_seqlens), x, state)

    def step(self, x_t: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        return self._run(lambda block, x, own: block.step(x, own), x_t, state)

    def set_activation_checkpointing(self, *, enabled: bool) -> None:
        """Choose whether training keeps only each block's input and recomputes the rest in backward.

        Memory then grows by (B, L, D) a block, for about one more forward pass of time.
        """
        self._checkpointing = enabled

    def _run(
        self,
        run: Callable[[Block, Tensor, State], tuple[Tensor, State]],
        x: Tensor,
        state: tuple[State, ...],
    ) -> tuple[Tensor, tuple[State, ...]]:
        if len(state) != len(self):
            raise ArgumentError(
                f"state has {len(state)} entries, allowed is one for each of the {len(self)} blocks, "
                "as init_state makes it"
            )
        states = []
        for block, own in zip(self, state, strict=True):
            x, own = run(block, x, own)  # noqa: PLW2901 - the block's next state
            states.append(own)
        return x, tuple(states)

    @torch.no_grad()
    def _scale_output_maps(self, *, n_residuals: int) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.div_(math.sqrt(n_residuals))


def checked_mixers(
    model: str,
    sizes: Mapping[str, int],
    *,
    n_layers: int | None,
    mixer: LayerFactory | None,
    pattern: Sequence[LayerFactory] | None,
) -> list[LayerFactory]:
    """Check a model's sizes, and return the mixer of each of its blocks.

    Args:
        model: Name of the model, for messages.
        sizes: What must be at least 1, by name.
        n_layers: Number of blocks; None for one of each in the pattern.
        mixer: The one mixer of every block.
        pattern: Mixers that take turns, over and over, until there are n_layers; instead of `mixer`.

    Raises:
        ArgumentError: A size is below 1, not exactly one of mixer and pattern is given, the pattern is
            empty, n_layers is missing or below 1, or the blocks do not suffice for one round of the pattern.
    """
    for name, size in sizes.items():
        check_at_least(model, name, size, 1)
    if (mixer is None) == (not pattern):
        what = "both are given" if pattern else "neither is given"
        raise ArgumentError(f"{model}: one of mixer and pattern is needed, and {what}")
    if mixer is not None:
        if n_layers is None:
            raise ArgumentError(f"{model}: n_layers is missing; only a pattern has a length of its own")
        check_at_least(model, "n_layers", n_layers, 1)
        return [mixer] * n_layers
    turns = list(pattern or ())
    n_layers = len(turns) if n_layers is None else n_layers
    check_at_least(model, "n_layers", n_layers, len(turns))
    return list(islice(cycle(turns), n_layers))
