"""Finds documents that came before, by their hashes, and writes shards without them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.mapped import MappedShard
from helix_data.shards.writing import ShardWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from helix_data.shards.index import Shard

# Documents that are compared at a time.
_BUCKET = 1 << 22


def repeated(hash_files: Sequence[Path], *, bucket: int = _BUCKET) -> list[NDArray[np.bool_]]:
    """Return for each document whether one before it has the same hash.

    Takes a byte of memory for each document, and 64 for each of those that are compared at a time:
    hashes stay in their files, of which those that begin alike are gathered in turn.

    Args:
        hash_files: 16 bytes for each document, in order; a file a shard.
        bucket: About how many documents are compared at a time.

    Returns:
        For each file a mask (N,).
    """
    hashes = [np.memmap(path, dtype="<u8", mode="r").reshape(-1, 2) for path in hash_files]
    counts = [len(part) for part in hashes]
    found = np.zeros(sum(counts), dtype=np.bool_)
    bits = max(0, (sum(counts) // bucket).bit_length())
    for prefix in range(1 << bits):
        places, keys = _beginning_with(hashes, prefix, bits)
        # The sort keeps the order of what is equal, so the first of a run is the one that came first.
        order = np.lexsort((keys[:, 0], keys[:, 1]))
        ordered = keys[order]
        again = (ordered[1:] == ordered[:-1]).all(axis=1)
        found[places[order[1:][again]]] = True
    return np.split(found, np.cumsum(counts)[:-1])


def without(folder: Path, shard: Shard, left_out: NDArray[np.bool_]) -> Shard | None:
    """Write a shard again without some of its documents, under a name of its own.

    Args:
        folder: Where it lies.
        shard: It stays as it is.
        left_out: Mask of its documents (N,).

    Returns:
        What the index says of the new one; None where no document is left.
    """
    mapped = MappedShard.open(folder, shard)
    data, ends = mapped.data(), mapped.ends()
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    writer = ShardWriter(folder, f"{shard.name}-unique")
    try:
        for number in np.flatnonzero(~left_out).tolist():
            writer.add(data[starts[number] : ends[number]].tobytes())
        return writer.close()
    finally:
        writer.abandon()


def _beginning_with(
    hashes: Sequence[NDArray[np.uint64]], prefix: int, bits: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the places and the hashes (N, 2) of which the first word begins with these bits."""
    places, keys, first = [np.empty(0, np.int64)], [np.empty((0, 2), np.uint64)], 0
    for part in hashes:
        here = np.flatnonzero(part[:, 0] >> np.uint64(64 - bits) == prefix) if bits else np.arange(len(part))
        places.append(here + first)
        keys.append(part[here])
        first += len(part)
    return np.concatenate(places), np.concatenate(keys)
