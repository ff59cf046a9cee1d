"""Patches of bytes as vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_multimodal.checks import check_at_least

BEYOND = 256
"""The symbol for places of a patch that lie beyond the end of the data."""
N_SYMBOLS = BEYOND + 1


class PatchEmbedding(nn.Module):
    """Each P bytes become one vector: the sum over p of E_p[byte p].

    That is a linear map of the bytes' one-hot codes, side by side, as in bGPT (Wu et al. 2024,
    arXiv:2402.19155, section 3.1, with the one further symbol for what lies beyond the end).

    Args:
        name: Name of the component, for messages.
        patch: Bytes P of a patch.
        d_model: Width D of the vectors.

    Raises:
        ArgumentError: A size is below 1.
    """

    def __init__(self, name: str, patch: int, d_model: int) -> None:
        super().__init__()
        check_at_least(name, patch=patch, d_model=d_model)
        self.patch = patch
        self.weight = nn.Parameter(torch.randn(patch * N_SYMBOLS, d_model) / patch**0.5)

    def forward(self, ids: Tensor) -> Tensor:
        """Map patches (B, N, P) int64 of symbols to (B, N, D)."""
        rows = ids + N_SYMBOLS * torch.arange(self.patch, device=ids.device)
        vectors: Tensor = F.embedding_bag(rows.flatten(0, 1), self.weight, mode="sum")
        return vectors.view(*ids.shape[:2], -1)


def patches_of(data: Tensor, lengths: Tensor, patch: int) -> tuple[Tensor, Tensor]:
    """Cut rows of bytes into patches.

    Args:
        data: (B, L) uint8.
        lengths: How many of a row are its own, (B,).
        patch: Bytes P of a patch.

    Returns:
        The symbols (B, N, P) int64, `BEYOND` where a row has ended, and which patches hold any byte (B, N).
    """
    ids = F.pad(data.long(), (0, -data.shape[1] % patch))
    inside = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    shape = (len(ids), ids.shape[1] // patch, patch)
    return ids.masked_fill(~inside, BEYOND).view(shape), inside.view(shape).any(-1)
