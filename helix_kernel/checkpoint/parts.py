"""What a pack is made of: shards of arrays, one behind the other, each with its tail."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import byte_pieces, small_bytes
from helix_kernel.checkpoint.compression import compress
from helix_kernel.checkpoint.digests import ChunkDigests, digest_of
from helix_kernel.checkpoint.manifest import Extent
from helix_kernel.checkpoint.pack import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from helix_kernel.checkpoint.layout import Layout, Shard
    from helix_kernel.checkpoint.location import PackSink


_THREADS = min(4, os.cpu_count() or 1)


@attrs.frozen
class Part:
    """One shard to be written.

    Args:
        layout: The whole array's layout.
        shard: Which shard of it.
        content: Its elements: an array of the shard's shape, of any kind that a state may hold.
    """

    layout: Layout
    shard: Shard
    content: Any


def packed_bytes(parts: Iterable[Part]) -> int:
    """Return the size of a pack of these parts; where some are compressed, the most that it has."""
    nbytes = 0
    for part in parts:
        nbytes += -nbytes % ALIGNMENT + part.layout.stored_bytes
    return nbytes


def write_parts(pack: PackSink, name: str, parts: Sequence[Part]) -> list[Extent]:
    """Append parts to a pack, and return where each lies.

    Args:
        pack: Takes them; its size is that of `packed_bytes`.
        name: Its name.
        parts: What to write.

    Raises:
        OSError: The system refuses.
    """
    extents = []
    for compressed, run in groupby(parts, lambda part: part.layout.compression is not None):
        extents += (_write_compressed if compressed else _write_plain)(pack, name, [*run])
    return extents


def _write_plain(pack: PackSink, name: str, parts: Sequence[Part]) -> list[Extent]:
    extents = []
    for part in parts:
        gap = bytes(-pack.position % ALIGNMENT)
        offset = pack.position + len(gap)
        extents.append(Extent(name, offset, _append(pack, gap, part)))
    return extents


def _append(pack: PackSink, gap: bytes, part: Part) -> tuple[str, ...]:
    """Append one shard, behind some zeros, and return the digests of its chunks."""
    layout, padded = part.layout, _padded(part)
    nbytes = layout.data_bytes(part.shard)
    if layout.chunk_shape is None:
        data = small_bytes(part.content if padded is None else padded, layout.dtype)
        pack.write(b"".join((gap, data, layout.tail(nbytes, data))))
        return (digest_of(data),)
    pack.write(gap)
    digests = ChunkDigests(layout.chunk_bytes)
    for piece in byte_pieces(part.content if padded is None else padded, layout.dtype):
        digests.update(piece)
        pack.write(piece.data)
    pack.write(layout.tail(nbytes))
    return digests.finish()


class _Compressed(NamedTuple):
    """A chunk as it is stored, and the digest of its data."""

    stored: bytes
    digest: str


def _write_compressed(pack: PackSink, name: str, parts: Sequence[Part]) -> list[Extent]:
    """Append compressed shards; several threads compress, also chunks of the shards that come next."""
    extents = []
    with ThreadPoolExecutor(_THREADS) as pool:
        compressed = _compressed(parts, pool)
        for part in parts:
            layout = part.layout
            pack.write(bytes(-pack.position % ALIGNMENT))
            offset, digests, lengths = pack.position, [], []
            for stored, digest in islice(compressed, -(-layout.data_bytes(part.shard) // layout.chunk_bytes)):
                pack.write(stored)
                digests.append(digest)
                lengths.append(len(stored))
            pack.write(layout.compressed_tail(lengths))
            extents.append(Extent(name, offset, tuple(digests), tuple(lengths)))
    return extents


def _compressed(parts: Sequence[Part], pool: ThreadPoolExecutor) -> Iterator[_Compressed]:
    """Yield the chunks of all parts; only a few are in memory at a time."""
    under_way: deque[Future[_Compressed]] = deque()
    for part in parts:
        for chunk, n_data in _chunks(part):
            under_way.append(pool.submit(_compress, chunk, n_data, part.layout.dtype.itemsize))
            if len(under_way) > _THREADS:
                yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _compress(chunk: np.ndarray, n_data: int, itemsize: int) -> _Compressed:
    return _Compressed(compress(chunk, itemsize), digest_of(chunk[:n_data].data))


def _chunks(part: Part) -> Iterator[tuple[np.ndarray, int]]:
    """Yield the chunks of a shard, each in memory of its own, and how many bytes of it are data."""
    padded, size = _padded(part), part.layout.chunk_bytes
    chunk, filled = np.empty(0, np.uint8), 0
    for piece in byte_pieces(part.content if padded is None else padded, part.layout.dtype):
        left = piece
        while len(left):
            if not filled:
                chunk = np.empty(size, np.uint8)
            n = min(size - filled, len(left))
            chunk[filled : filled + n] = left[:n]
            filled, left = filled + n, left[n:]
            if filled == size:
                yield chunk, size
                filled = 0
    if filled:
        chunk[filled:] = 0
        yield chunk, filled


def _padded(part: Part) -> np.ndarray | None:
    """Return the data of a shard that is cut off inside, with zeros between its elements; else None."""
    dtype, shape = part.layout.dtype, part.shard.shape
    block_shape = part.layout.data_shape(part.shard)
    if block_shape == shape:
        return None
    block = np.zeros(block_shape, dtype)
    content = np.concatenate([*byte_pieces(part.content, dtype)]).view(dtype)
    block[tuple(slice(n) for n in shape)] = content.reshape(shape)
    return block
