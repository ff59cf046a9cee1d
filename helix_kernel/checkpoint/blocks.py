"""The elements of a stored array in order, a few megabytes at a time, each byte checked on the way.

It is how arrays are exported and compared that are larger than memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_kernel.checkpoint.fetch import data_of
from helix_kernel.checkpoint.packed_array import PackedArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.checkpoint.layout import Layout, Shard
    from helix_kernel.checkpoint.manifest import Extent
    from helix_kernel.checkpoint.reader import Checkpoint

BLOCK_BYTES = 8 * 2**20
"""No more is in memory at a time, but where one row of an array in several shards has more."""

_CACHED = 2**16


def blocks(checkpoint: Checkpoint, name: str) -> Iterator[np.ndarray]:
    """Yield an array's elements in C order, as flat arrays of a few megabytes.

    Args:
        checkpoint: Open.
        name: Path of the array, or of one tied to it.

    Raises:
        CheckpointError: A byte is missing or was changed.
    """
    array = checkpoint[name]
    stored = checkpoint.manifest.arrays[array.name]
    if in_order(stored.layout):
        for shard, extent in stored.parts():
            for content in shard_data(checkpoint, array.name, shard, extent):
                yield content.view(stored.layout.dtype)
        return
    rows = max(1, BLOCK_BYTES * array.shape[0] // stored.layout.nbytes)
    for low in range(0, array.shape[0], rows):
        yield np.ascontiguousarray(array[low : low + rows]).reshape(-1)


def in_order(layout: Layout) -> bool:
    """Whether the data of an array's shards, one behind the other, are its elements in C order."""
    cut = [i for i, (n, rows) in enumerate(zip(layout.shape, layout.shard_shape, strict=True)) if rows < n]
    together = len(cut) < 2 and all(n == 1 for n in layout.shape[: cut[0] if cut else 0])
    return together and all(layout.data_shape(shard) == shard.shape for shard in layout.shards)


def shard_data(checkpoint: Checkpoint, name: str, shard: Shard, extent: Extent) -> Iterator[np.ndarray]:
    """Yield the data of one shard, one chunk after the other, as flat arrays of uint8.

    Raises:
        CheckpointError: A byte is missing or was changed.
    """
    for _, data in shard_chunks(checkpoint, name, shard, extent):
        yield data


def shard_chunks(
    checkpoint: Checkpoint, name: str, shard: Shard, extent: Extent
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield each chunk of one shard as it is stored, and its data: the same but where it is compressed.

    Raises:
        CheckpointError: A byte is missing or was changed.
    """
    for piece in PackedArray(name, checkpoint.manifest.arrays[name]).chunks(shard, extent):
        stored = np.empty(piece.nbytes, np.uint8)
        checkpoint.read_into(piece.pack, piece.offset, stored.data, piece.owner)
        yield stored, np.frombuffer(data_of(piece, stored.data, checkpoint.source), np.uint8)


def aligned(
    left: Iterator[np.ndarray], right: Iterator[np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the parts of two flat sequences of as many elements that stand at the same places.

    They are small enough that what is computed of them stays in the processor's cache.
    """
    a = b = np.empty(0)
    while True:
        a = a if len(a) else next(left, a)
        b = b if len(b) else next(right, b)
        n = min(len(a), len(b), _CACHED)
        if not n:
            return
        yield a[:n], b[:n]
        a, b = a[n:], b[n:]
