"""The encoder `byte-patches`: the bytes of any kind of data, a patch of them to a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from helix_multimodal.encoders.element_bytes import to_bytes
from helix_multimodal.encoders.patch_embedding import PatchEmbedding, patches_of
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence


class BytePatches(nn.Module):
    """Tokens of any data: trunk(Σ_p E_p[byte p of the patch] + position).

    bGPT (Wu et al. 2024, arXiv:2402.19155, section 3.1) and MEGABYTE (Yu et al. 2023, arXiv:2305.07185,
    section 2.2): one encoder for all, which is told nothing of what it reads. The bytes are those of the
    sample's elements; see `to_bytes`.

    Args:
        d_model: Width D of the tokens.
        patch: Bytes that become one token; a row that ends within one is filled up with a symbol of its own.
        positions: What tells where a token is: none, sinusoidal or learned. Recurrent layers need none.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, or there are no such positions.
    """

    modality = None

    def __init__(
        self,
        d_model: int,
        *,
        patch: int = 16,
        positions: PositionsKind = "none",
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        self.embedding = PatchEmbedding("byte-patches", patch, d_model)
        self.positions = Positions(d_model, 1, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(bytes / patch), D).

        Raises:
            ArgumentError: The values are of a dtype that has no bytes; see `to_bytes`.
        """
        ids, mask = patches_of(*to_bytes(batch), self.embedding.patch)
        x = self.embedding(ids)
        tokens: Tokens = self.trunk(Tokens(x + self.positions((x.shape[1],), x), mask))
        return tokens
