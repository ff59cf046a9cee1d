"""The encoder `byte-embedding`: bytes of text, one token each or a few to a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from helix_multimodal.encoders.batches import check_batch, own_values
from helix_multimodal.encoders.patch_embedding import PatchEmbedding, patches_of
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence


class ByteEmbedding(nn.Module):
    """Tokens of text: trunk(Σ_p E_p[byte p of the patch] + position).

    Args:
        d_model: Width D of the tokens.
        patch: Bytes that become one token; a row that ends within one is filled up with a symbol of its own.
        positions: What tells where a token is: none, sinusoidal or learned. Recurrent layers need none.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, or there are no such positions.
    """

    modality = "text"

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 1,
        positions: PositionsKind = "none",
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding("byte-embedding", patch, d_model)
        self.positions = Positions(d_model, 1, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(L / patch), D).

        Raises:
            ArgumentError: The batch is not of text.
        """
        check_batch("byte-embedding", batch, self.modality)
        ids, mask = patches_of(own_values(batch), batch.sizes[:, 0], self.embedding.patch)
        x = self.embedding(ids)
        tokens: Tokens = self.trunk(Tokens(x + self.positions((x.shape[1],), x), mask))
        return tokens
