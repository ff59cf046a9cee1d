"""Reading a part of an array, cut along any axes: for those who hold a share of one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from helix_kernel.checkpoint.fetch import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.checkpoint.layout import Layout
    from helix_kernel.checkpoint.pack_files import Packs
    from helix_kernel.checkpoint.packed_array import PackedArray

SLAB_BYTES = 64 * 2**20
"""What is held at most besides the target, where a region is narrower than what it must be read from."""


def read_region(
    array: PackedArray, out: np.ndarray, origin: tuple[int, ...], packs: Packs, source: str, *, verify: bool
) -> None:
    """Read a region; of shards and inner chunks, only those that hold some of it.

    Args:
        array: The array.
        out: Takes the region: C-ordered, of its shape and the array's type.
        origin: Where its first element stands in the array.
        packs: Where from.
        source: The checkpoint, for errors.
        verify: Read whole inner chunks, and check them against their digests.

    Raises:
        CheckpointError: Bytes are missing or changed; names the array.
    """
    if not out.size:
        return
    rows = np.atleast_1d(out)
    first = origin[0] if origin else 0
    columns = [slice(low, low + n) for low, n in zip(origin[1:], rows.shape[1:], strict=True)]
    for slab in _slabs(array.stored.layout, rows):
        low, high = first + slab.start, first + slab.stop
        pieces, afterwards = array.pieces(low, high, rows[slab], verify=verify, columns=columns)
        fetch(pieces, packs, source)
        for complete in afterwards:
            complete()


def _slabs(layout: Layout, rows: np.ndarray) -> Iterator[slice]:
    """Cut the rows of a region such that what must be read for each is small, unless it needs no detour."""
    whole = rows.shape[1:] == layout.shape[1:] == layout.shard_shape[1:]
    width = math.prod(layout.shape[1:]) * layout.dtype.itemsize
    step = len(rows) if whole else max(1, SLAB_BYTES // width)
    for low in range(0, len(rows), step):
        yield slice(low, min(low + step, len(rows)))
