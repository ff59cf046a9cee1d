"""A language model: token embedding, residual blocks of any mixer, norm and head."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import protocol
from helix_ssm.layers.block import Block, LayerFactory
from helix_ssm.layers.protocol import State, check_at_least
from helix_ssm.layers.rms_norm import RMSNorm

if TYPE_CHECKING:
    from collections.abc import Callable


class LanguageModel(nn.Module):
    """Next-token model over ids: logits = head(norm(blocks(embedding(ids)))).

    Every block is pre-norm (Xiong et al. 2020, arXiv:2002.04745): x + mixer(norm(x)) and, where there is
    a channel layer, x + channel(norm(x)). Embeddings begin with a standard deviation of 0.02, and each
    layer's ``out_proj.weight`` is divided by the square root of the number of residual additions (Radford
    et al. 2019, GPT-2, section 2.3), so that the residual stream's variance does not grow with depth.

    Args:
        d_model: Width D of the residual stream.
        n_layers: Number of blocks.
        mixer: Builds a block's layer along the sequence.
        channel: Builds a block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and before the head.
        vocab_size: Number of token ids V; 256 for bytes.
        tie_embeddings: Whether the head uses the embedding's weight.
        dropout: Probability that an element of a layer's output is dropped in training.

    Raises:
        ArgumentError: A size is below 1 or dropout is not in [0, 1).
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_layers: int,
        mixer: LayerFactory,
        channel: LayerFactory | None = None,
        norm: LayerFactory = RMSNorm,
        vocab_size: int = 256,
        tie_embeddings: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        for name, size in {"d_model": d_model, "n_layers": n_layers, "vocab_size": vocab_size}.items():
            check_at_least("language-model", name, size, 1)
        if not 0 <= dropout < 1:
            raise ArgumentError(f"language-model: dropout is {dropout!r}, allowed is >= 0 and < 1")
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.blocks = nn.ModuleList(
            Block(d_model, mixer=mixer, channel=channel, norm=norm, dropout=dropout) for _ in range(n_layers)
        )
        self.norm = norm(d_model=d_model)
        self.head = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)
        self._checkpointing = False
        self._init_weights(n_residuals=n_layers * (1 if channel is None else 2))

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, L) int64 in [0, V) to logits (B, L, V)."""
        _check_ids(ids, n_dims=2)
        x = self.embedding(ids)
        checkpointing = self._checkpointing and self.training and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if checkpointing else block(x)
        return self._logits(x)

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[State, ...]:
        """Return the state before the first token: one state for each block."""
        device = self.embedding.weight.device if device is None else device
        dtype = self.embedding.weight.dtype if dtype is None else dtype
        return tuple(
            protocol.init_state(block, batch_size, device=device, dtype=dtype) for block in self.blocks
        )

    def extend(self, ids: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        """Map ids (B, L) that follow `state` to logits (B, L, V) and the next state."""
        _check_ids(ids, n_dims=2)
        x, state = self._through_blocks(protocol.extend, self.embedding(ids), state)
        return self._logits(x), state

    def step(self, ids_t: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        """Map one id a row, ids_t (B,), that follows `state` to logits (B, V) and the next state."""
        _check_ids(ids_t, n_dims=1)
        x, state = self._through_blocks(protocol.step, self.embedding(ids_t), state)
        return self._logits(x.unsqueeze(1)).squeeze(1), state

    def set_activation_checkpointing(self, *, enabled: bool) -> None:
        """Choose whether training keeps only each block's input and recomputes the rest in backward.

        Memory then grows by (B, L, D) a block, for about one more forward pass of time.
        """
        self._checkpointing = enabled

    def _through_blocks(
        self,
        run: Callable[[nn.Module, Tensor, State], tuple[Tensor, State]],
        x: Tensor,
        state: tuple[State, ...],
    ) -> tuple[Tensor, tuple[State, ...]]:
        if len(state) != len(self.blocks):
            raise ArgumentError(
                f"language-model: state has {len(state)} entries, allowed is one for each of the "
                f"{len(self.blocks)} blocks, as init_state makes it"
            )
        states = []
        for block, block_state in zip(self.blocks, state, strict=True):
            x, next_state = run(block, x, block_state)
            states.append(next_state)
        return x, tuple(states)

    def _logits(self, x: Tensor) -> Tensor:
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(self.norm(x), weight)

    @torch.no_grad()
    def _init_weights(self, *, n_residuals: int) -> None:
        nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        for name, parameter in self.blocks.named_parameters():
            if name.endswith("out_proj.weight"):
                parameter.div_(math.sqrt(n_residuals))


def _check_ids(ids: Tensor, *, n_dims: int) -> None:
    if ids.dim() != n_dims or ids.dtype != torch.int64:
        shape = "(B, L)" if n_dims == 2 else "(B,)"
        raise ArgumentError(
            f"language-model: ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, "
            f"allowed is int64 {shape}"
        )
