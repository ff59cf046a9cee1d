"""Sequences of different lengths in one row, end to end, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError


def pack(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Lay the tokens that count of each row end to end.

    Padding may stand anywhere, on the left as for generation or on the right; it is left out.

    Args:
        x: A padded batch (B, L, ...), of any dtype.
        mask: Which tokens count (B, L), bool.

    Returns:
        The tokens in one row (1, T, ...), and the bounds (B + 1,) int64 between what were rows: the
        `cu_seqlens` that layers take.

    Raises:
        ArgumentError: The mask is not bool, or not of the batch's shape.
    """
    _check(mask, tuple(x.shape[:2]))
    bounds = torch.zeros(len(mask) + 1, dtype=torch.int64, device=mask.device)
    bounds[1:] = mask.sum(1).cumsum(0)
    return x[mask].unsqueeze(0), bounds


def unpack(packed: Tensor, mask: Tensor) -> Tensor:
    """Put what `pack` laid end to end back into its places, and zeros into the others.

    Args:
        packed: The tokens in one row (1, T, ...).
        mask: Which places of (B, L) they come from, as given to `pack`.

    Returns:
        A padded batch (B, L, ...).

    Raises:
        ArgumentError: The mask is not bool, or marks another number of places.
    """
    _check(mask, tuple(mask.shape))
    if packed.shape[:2] != (1, int(mask.sum())):
        raise ArgumentError(
            f"packed has shape {tuple(packed.shape)}, allowed is (1, {int(mask.sum())}, ...) for this mask"
        )
    padded = packed.new_zeros(*mask.shape, *packed.shape[2:])
    padded[mask] = packed[0]
    return padded


def _check(mask: Tensor, shape: tuple[int, ...]) -> None:
    if mask.dtype != torch.bool or tuple(mask.shape) != shape or mask.dim() != 2:
        raise ArgumentError(
            f"mask has shape {tuple(mask.shape)} and dtype {mask.dtype}, allowed is bool {shape[:2]}"
        )
