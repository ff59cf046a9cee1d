"""Slots of the scans that go token by token: whole rows where there are many, parts of rows where not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_cuda.interpreter import interprets
from helix_cuda.ops.chunks import Chunks, cut

if TYPE_CHECKING:
    from torch import Tensor

SIZES = (4096, 1024, 256, 64)
"""Tokens of a slot that is a part of a row."""
WHOLE = 1 << 30
"""Tokens of a slot that holds any row."""
WARP = 32
_PLENTY = 2048
"""Warps that a row is cut for, where it is: slots are no shorter than this takes. No device's own number, so
that devices do not differ."""
_INTERPRETED = 512
"""Most channels of an interpreted program: wide blocks take an interpreter hardly longer than narrow ones."""


def slots_for(like: Tensor, enough: int, cu_seqlens: Tensor | None) -> Chunks:
    """Cut the sequences of a call into slots that a warp walks through for each 32 channels.

    A second pass over rows that are cut reads everything again: where there are many, or few tokens, they
    are whole.

    Args:
        like: A tensor (B, L, D) of the call.
        enough: Warps that keep a GPU busy.
        cu_seqlens: Bounds of the sequences packed into its one row, or None.
    """
    batch_size, seq_len, d_model = like.shape
    warps = batch_size * -(-d_model // WARP)
    if cu_seqlens is None and (warps >= enough or seq_len <= SIZES[-1]):
        return cut(like, WHOLE, None)
    fitting = (size for size in SIZES if warps * (seq_len // size) >= _PLENTY)
    return cut(like, next(fitting, SIZES[-1]), cu_seqlens)


def interpreted_block(width: int) -> int | None:
    """Return how many of `width` channels an interpreted program takes; None where kernels are compiled."""
    return min(1 << (width - 1).bit_length(), _INTERPRETED) if interprets() else None
