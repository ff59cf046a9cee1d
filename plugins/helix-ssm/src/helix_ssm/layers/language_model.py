"""A language model: token embedding, residual blocks of any mixers, norm and head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers import auxiliary, remembering
from helix_ssm.layers.packing import pack, unpack
from helix_ssm.layers.protocol import State, check_ids
from helix_ssm.layers.rms_norm import RMSNorm
from helix_ssm.layers.stack import Stack, checked_mixers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.block import LayerFactory
    from helix_ssm.layers.remembering import MemoryFactory


class LanguageModel(nn.Module):
    """Next-token model over ids: logits = head(norm(blocks(embedding(ids)))).

    Every block is pre-norm (Xiong et al. 2020, arXiv:2002.04745): x + mixer(norm(x)) and, where there is
    a channel layer, x + channel(norm(x)). Embeddings begin with a standard deviation of 0.02, and each
    layer's ``out_proj.weight`` is divided by the square root of the number of residual additions (Radford
    et al. 2019, GPT-2, section 2.3), so that the residual stream's variance does not grow with depth.

    Args:
        d_model: Width D of the residual stream.
        n_layers: Number of blocks; None for as many as the pattern names.
        mixer: Builds every block's layer along the sequence.
        pattern: Instead of `mixer`: builds the blocks' layers along the sequence, which take turns.
        channel: Builds a block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and before the head.
        vocab_size: Number of token ids V; 256 for bytes.
        tie_embeddings: Whether the head uses the embedding's weight.
        dropout: Probability that an element of a layer's output is dropped in training.
        memory: Builds a memory that has a say in what comes next (`helix_kernel.memory.LanguageMemory`), with
            `d_model` and `vocab_size`; None for none. The logits are then log-probabilities.

    Raises:
        ArgumentError: A size is below 1, dropout is not in [0, 1), not exactly one of mixer and pattern is
            given, or the memory is not one for language models.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_layers: int | None = None,
        mixer: LayerFactory | None = None,
        pattern: Sequence[LayerFactory] | None = None,
        channel: LayerFactory | None = None,
        norm: LayerFactory = RMSNorm,
        vocab_size: int = 256,
        tie_embeddings: bool = True,
        dropout: float = 0.0,
        memory: MemoryFactory | None = None,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "vocab_size": vocab_size}
        mixers = checked_mixers("language-model", sizes, n_layers=n_layers, mixer=mixer, pattern=pattern)
        self.vocab_size = vocab_size
        self.embedding = nn.Embedding(vocab_size, d_model)
        self.blocks = Stack(d_model, mixers=mixers, channel=channel, norm=norm, dropout=dropout)
        self.norm = norm(d_model=d_model)
        self.head = None if tie_embeddings else nn.Linear(d_model, vocab_size, bias=False)
        for layer in (self.embedding, self.head):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.02)
        self.memory = None
        if memory is not None:
            self.memory = remembering.checked(memory(d_model=d_model, vocab_size=vocab_size))

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map ids to logits.

        Args:
            ids: (B, L) int64 in [0, V).
            mask: Which ids count (B, L), bool, where rows are padded, on the left or the right. What
                is padding changes nothing, and gets logits of zero.
            cu_seqlens: Instead of a mask: bounds (n + 1,) int64 of n sequences packed into one row.

        Returns:
            Logits (B, L, V).

        Raises:
            ArgumentError: ids, mask or cu_seqlens have another shape or dtype.
        """
        if mask is not None:
            check_ids("language-model", ids)
            packed, cu_seqlens = pack(ids, mask)
            return unpack(self(packed, cu_seqlens=cu_seqlens), mask)
        features = self.features(ids, cu_seqlens=cu_seqlens)
        if self.memory is None:
            return self.logits(features)
        n_rows = len(ids) if cu_seqlens is None else len(cu_seqlens) - 1
        return self._mixed(features, ids, self.memory.init_state(n_rows), cu_seqlens)[0]

    def features(
        self, ids: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> Tensor:
        """Map ids to what the norm and the head read, (B, L, D), 0 where the mask hides; see `forward`."""
        check_ids("language-model", ids)
        if mask is not None:
            packed, cu_seqlens = pack(ids, mask)
            return unpack(self.features(packed, cu_seqlens=cu_seqlens), mask)
        features: Tensor = self.blocks(self.embedding(ids), cu_seqlens=cu_seqlens)
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Map features (B, L, D), of some positions or all, to their logits (B, L, V), without the memory."""
        weight = self.embedding.weight if self.head is None else self.head.weight
        return F.linear(self.norm(features), weight)

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> tuple[State, ...]:
        """Return the state before the first token: one state for each block, and the memory's."""
        device = self.embedding.weight.device if device is None else device
        dtype = self.embedding.weight.dtype if dtype is None else dtype
        states = self.blocks.init_state(batch_size, device=device, dtype=dtype)
        return states if self.memory is None else (*states, self.memory.init_state(batch_size))

    def extend(
        self, ids: Tensor, state: tuple[State, ...], *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Map ids (B, L) that follow `state` to logits (B, L, V) and the next state.

        With `cu_seqlens` the ids are n chunks packed into one row, and each of the state's n rows goes on
        with its own.
        """
        check_ids("language-model", ids)
        x, states = self.blocks.extend(self.embedding(ids), self._of_blocks(state), cu_seqlens=cu_seqlens)
        logits, last = self._mixed(x, ids, state[-1], cu_seqlens)
        return logits, (*states, *last)

    def step(self, ids_t: Tensor, state: tuple[State, ...]) -> tuple[Tensor, tuple[State, ...]]:
        """Map one id a row, ids_t (B,), that follows `state` to logits (B, V) and the next state."""
        check_ids("language-model", ids_t, n_dims=1)
        x, states = self.blocks.step(self.embedding(ids_t), self._of_blocks(state))
        logits, last = self._mixed(x.unsqueeze(1), ids_t.unsqueeze(1), state[-1])
        return logits.squeeze(1), (*states, *last)

    def prefill(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, tuple[State, ...]]:
        """Read prompts of different lengths, padded to one.

        Args:
            ids: (B, L) int64.
            mask: Which ids count (B, L), bool; at least one in each row.

        Returns:
            The logits (B, V) for what comes after each prompt, and the state there, from which `step`
            goes on.

        Raises:
            ArgumentError: A row has no id that counts, or a shape or dtype does not fit.
        """
        check_ids("language-model", ids)
        packed, bounds = pack(ids, mask)
        if bool((bounds.diff() == 0).any()):
            raise ArgumentError("language-model: mask has a row without any id that counts")
        start = self.init_state(len(ids), device=ids.device)
        if self.memory is not None:
            logits, state = self.extend(packed, start, cu_seqlens=bounds)
            return logits[:, bounds[1:] - 1].squeeze(0), state
        x, state = self.blocks.extend(self.embedding(packed), start, cu_seqlens=bounds)
        return self.logits(x[:, bounds[1:] - 1]).squeeze(0), state

    def auxiliary_loss(self) -> Tensor | None:
        """Return the sum of the layers' own losses, as a router's, over the last forward in training."""
        return auxiliary.collect(self)

    def set_activation_checkpointing(self, *, enabled: bool) -> None:
        """Choose whether training keeps only each block's input; see `Stack`."""
        self.blocks.set_activation_checkpointing(enabled=enabled)

    def _of_blocks(self, state: tuple[State, ...]) -> tuple[State, ...]:
        return state if self.memory is None else state[:-1]

    def _mixed(
        self, features: Tensor, ids: Tensor, state: State, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, tuple[State, ...]]:
        """Return the logits with the memory's say, and the memory's next state; none without a memory."""
        logits = self.logits(features)
        if self.memory is None:
            return logits, ()
        logits, state = remembering.mixed(self.memory, logits, ids, features, state, cu_seqlens)
        return logits, (state,)
