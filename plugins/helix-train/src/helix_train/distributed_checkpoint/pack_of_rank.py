"""The pack of one rank: the shards that it holds, one behind the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import byte_pieces
from helix_kernel.checkpoint.digests import ChunkDigests
from helix_kernel.checkpoint.manifest import Extent
from helix_kernel.checkpoint.pack import ALIGNMENT, PackWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import torch

    from helix_kernel.checkpoint.layout import Layout, Shard


@attrs.frozen
class Part:
    """One shard to be written.

    Args:
        name: The tensor's name.
        layout: The whole tensor's layout.
        shard: Which shard of it.
        content: Its elements, on any device.
    """

    name: str
    layout: Layout
    shard: Shard
    content: torch.Tensor


@attrs.frozen
class Written:
    """What one rank has written.

    Args:
        pack: The pack's name; there is no file where its size is 0.
        nbytes: Its size.
        extents: Name of a tensor and key of a shard → where the shard lies.
    """

    pack: str
    nbytes: int
    extents: dict[tuple[str, str], Extent]


def write_pack(path: Path, parts: Sequence[Part]) -> Written:
    """Write a pack, and return when it is on the disk.

    Raises:
        OSError: The system refuses.
    """
    offsets, nbytes = [], 0
    for part in parts:
        offsets.append(-(-nbytes // ALIGNMENT) * ALIGNMENT)
        nbytes = offsets[-1] + part.layout.stored_bytes
    extents: dict[tuple[str, str], Extent] = {}
    if not parts:
        return Written(path.name, 0, extents)
    with PackWriter(path, nbytes) as pack:
        for part, offset in zip(parts, offsets, strict=True):
            pack.write(bytes(offset - pack.position))
            extents[part.name, part.shard.key] = Extent(path.name, offset, _append(pack, part))
    return Written(path.name, nbytes, extents)


def _append(pack: PackWriter, part: Part) -> tuple[str, ...]:
    """Append one shard and its tail, and return the digests of its chunks."""
    layout = part.layout
    digests = ChunkDigests(layout.chunk_bytes)
    data = bytearray()
    for piece in _data(part):
        digests.update(piece)
        pack.write(piece.data)
        if layout.chunk_shape is None:
            data += piece.data
    pack.write(layout.tail(layout.data_bytes(part.shard), bytes(data)))
    return digests.finish()


def _data(part: Part) -> Iterator[np.ndarray]:
    """Yield a shard's data: its elements, with zeros between them where it is cut off inside."""
    dtype, shape = part.layout.dtype, part.shard.shape
    block_shape = part.layout.data_shape(part.shard)
    if block_shape == shape:
        return byte_pieces(part.content, dtype)
    content = np.concatenate(list(byte_pieces(part.content, dtype))).view(dtype).reshape(shape)
    block = np.zeros(block_shape, dtype)
    block[tuple(slice(n) for n in shape)] = content
    return iter([block.reshape(-1).view(np.uint8)])
