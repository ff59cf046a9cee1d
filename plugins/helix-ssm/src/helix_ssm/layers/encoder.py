"""From ids to vectors: embedding, residual blocks of any mixers, norm. What is below an encoder's head."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.packing import pack, unpack
from helix_ssm.layers.stack import Stack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.block import LayerFactory


class Encoder(nn.Module):
    """norm(blocks(embedding(ids))), whose blocks may look ahead.

    Embeddings begin with a standard deviation of 0.02, as a language model's.

    Args:
        d_model: Width D.
        n_ids: Number of ids.
        mixers: Builds the layer along the sequence of each block, in order.
        channel: Builds each block's second layer, across channels; None for none.
        norm: Builds the norm before each layer and at the end.
        dropout: Probability that an element of a layer's output is dropped in training.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_ids: int,
        mixers: Sequence[LayerFactory],
        channel: LayerFactory | None,
        norm: LayerFactory,
        dropout: float,
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_ids, d_model)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.blocks = Stack(d_model, mixers=mixers, channel=channel, norm=norm, dropout=dropout)
        self.norm = norm(d_model=d_model)

    def forward(self, ids: Tensor, *, mask: Tensor | None = None, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map ids to vectors.

        Args:
            ids: (B, L) int64.
            mask: Which ids count (B, L), bool, where rows are padded on either side. What is padding
                changes nothing, and gets zeros.
            cu_seqlens: Instead of a mask: bounds (n + 1,) of n sequences packed into one row.

        Returns:
            (B, L, D).

        Raises:
            ArgumentError: ids, mask or cu_seqlens have another shape or dtype.
        """
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise ArgumentError(
                f"ids have shape {tuple(ids.shape)} and dtype {ids.dtype}, allowed is int64 (B, L)"
            )
        if mask is not None:
            packed, cu_seqlens = pack(ids, mask)
            return unpack(self(packed, cu_seqlens=cu_seqlens), mask)
        return cast("Tensor", self.norm(self.blocks(self.embedding(ids), cu_seqlens=cu_seqlens)))
