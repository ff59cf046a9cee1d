"""What a pack is made of: shards of arrays, one behind the other, each with its tail."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import byte_pieces, small_bytes
from helix_kernel.checkpoint.digests import ChunkDigests, digest_of
from helix_kernel.checkpoint.manifest import Extent
from helix_kernel.checkpoint.pack import ALIGNMENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from helix_kernel.checkpoint.layout import Layout, Shard
    from helix_kernel.checkpoint.location import PackSink


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
    """Return the size of a pack of these parts."""
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
