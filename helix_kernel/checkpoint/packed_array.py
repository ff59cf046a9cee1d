"""One array of a checkpoint: which bytes of which packs make up its rows."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.checkpoint.fetch import Folded, Piece
from helix_kernel.checkpoint.layout import CHUNK_BYTES
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from helix_kernel.checkpoint.layout import Shard
    from helix_kernel.checkpoint.manifest import Extent, StoredArray
    from helix_kernel.checkpoint.pack_files import Packs


@attrs.frozen
class PackedArray:
    """An array as a checkpoint holds it.

    Args:
        name: Its path.
        stored: Its layout, and where its shards lie.
    """

    name: str
    stored: StoredArray

    @property
    def owner(self) -> str:
        """How errors name it."""
        return f"array {self.name!r}"

    def empty(self, shape: tuple[int, ...], source: str) -> np.ndarray:
        """Return memory for the array or a part of it.

        Raises:
            CheckpointError: There is not so much.
        """
        try:
            return np.empty(shape, self.stored.layout.dtype)
        except (MemoryError, ValueError) as error:
            raise CheckpointError(f"{source}: {self.owner} of shape {shape} does not fit: {error}") from error

    def pieces(
        self, low: int, high: int, out: np.ndarray, *, verify: bool, columns: Sequence[slice] | None = None
    ) -> tuple[list[Piece], list[Callable[[], None]]]:
        """Return what must be read for a region, and what is to be done once it is.

        Args:
            low: First row of the first axis (a 0-d array has one).
            high: One past the last.
            out: Takes the region: C-ordered, of the region's shape.
            verify: Read whole chunks, and check them.
            columns: Where the region begins and stops along the later axes; all of them if left out.
        """
        pieces: list[Piece] = []
        afterwards: list[Callable[[], None]] = []
        nbytes = self.stored.layout.nbytes
        if len(self.stored.extents) == 1 and out.nbytes == nbytes == self.stored.layout.chunk_bytes:
            (extent,) = self.stored.extents
            return [self._chunk(extent, 0, nbytes, out.reshape(-1).view(np.uint8).data, verify=verify)], []
        if columns is None:
            columns = [slice(0, n) for n in self.stored.layout.shape[1:]]
        for shard, extent in self.stored.parts():
            first = shard.origin[0] if shard.origin else 0
            rows = shard.shape[0] if shard.shape else 1
            begin, end = max(low, first), min(high, first + rows)
            within = _overlaps(shard.region[1:], columns)
            if begin < end and all(part.start < part.stop for part in within):
                data_shape = self.stored.layout.data_shape(shard)[1:]
                row_bytes = math.prod(data_shape) * self.stored.layout.dtype.itemsize
                place = out[(slice(begin - low, end - low), *_within(columns, within))]
                target = place
                if place.shape[1:] != data_shape or not place.flags.c_contiguous:
                    target = np.empty((end - begin, *data_shape), out.dtype)
                    content = target[(slice(None), *_within(shard.region[1:], within))]
                    afterwards.append(functools.partial(np.copyto, place, content))
                pieces += self._run(
                    shard, extent, ((begin - first) * row_bytes, (end - first) * row_bytes), target, verify
                )
        return pieces, afterwards

    def mapped(self, packs: Packs) -> np.ndarray | None:
        """Return the array as memory of its pack, or None where it is no single run of one."""
        if len(self.stored.extents) != 1 or self.stored.layout.compression:
            return None
        (extent,) = self.stored.extents
        layout = self.stored.layout
        memory = packs.map(extent.pack)
        if memory is None or layout.data_shape(layout.shards[0]) != layout.shape:
            return None
        content = memory[extent.offset : extent.offset + layout.nbytes]
        return content.view(layout.dtype).reshape(layout.shape)

    def checks(self) -> Iterator[Piece]:
        """Yield pieces that, fetched, have checked every byte that is stored of the array."""
        for shard, extent in self.stored.parts():
            yield from self.chunks(shard, extent)

    def chunks(self, shard: Shard, extent: Extent) -> Iterator[Piece]:
        """Yield pieces that, fetched, have checked the chunks of a shard, and with the last its tail."""
        nbytes, step = self.stored.layout.data_bytes(shard), self.stored.layout.chunk_bytes
        for i in range(len(extent.digests)):
            n_data = min(step, nbytes - i * step)
            if i < len(extent.digests) - 1:
                yield self._chunk(extent, i, n_data)
            else:
                n_tail = self.stored.stored_bytes(extent) - (sum(extent.lengths) or nbytes)
                yield self._chunk(extent, i, n_data, None, 0, n_tail, self._tail(extent, nbytes))

    def _chunk(
        self,
        extent: Extent,
        index: int,
        n_data: int,
        target: memoryview | None = None,
        skip: int = 0,
        n_tail: int = 0,
        tail: Callable[[memoryview], bytes] = bytes,
        *,
        verify: bool = True,
    ) -> Piece:
        """Return the piece that is one chunk, of so many bytes of data."""
        step, digest = self.stored.layout.chunk_bytes, extent.digests[index] if verify else None
        offset, nbytes, folded = extent.offset + index * step, n_data, None
        if extent.lengths:
            offset, nbytes = extent.offset + sum(extent.lengths[:index]), extent.lengths[index]
            folded = Folded(step, n_data)
        return Piece(extent.pack, offset, nbytes, digest, target, skip, self.owner, n_tail, tail, folded)

    def _tail(self, extent: Extent, nbytes: int) -> Callable[[memoryview], bytes]:
        """Return what gives the tail of a shard with so many bytes of data."""
        layout = self.stored.layout
        if extent.lengths:
            return lambda _: layout.compressed_tail(extent.lengths)
        return functools.partial(layout.tail, nbytes)

    def _run(
        self,
        shard: Shard,
        extent: Extent,
        span: tuple[int, int],
        target: np.ndarray,
        verify: bool,  # noqa: FBT001 - internal
    ) -> Iterator[Piece]:
        """Yield the pieces for a span of bytes of a shard's data."""
        layout = self.stored.layout
        start, stop = span
        buffer = target.reshape(-1).view(np.uint8).data
        nbytes = layout.data_bytes(shard)
        whole_chunks = verify or layout.compression is not None
        step = layout.chunk_bytes if whole_chunks else CHUNK_BYTES
        for i in range(start // step, -(-stop // step)):
            low, high = i * step, min((i + 1) * step, nbytes)
            begin, end = max(low, start), min(high, stop)
            part = buffer[begin - start : end - start]
            if whole_chunks:
                yield self._chunk(extent, i, high - low, part, begin - low, verify=verify)
            else:
                yield Piece(extent.pack, extent.offset + begin, end - begin, None, part, 0, self.owner)


def _overlaps(region: Sequence[slice], other: Sequence[slice]) -> list[slice]:
    return [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(region, other, strict=True)]


def _within(region: Sequence[slice], part: Sequence[slice]) -> list[slice]:
    """Return the index of a part of a region in an array that holds just the region."""
    return [slice(b.start - a.start, b.stop - a.start) for a, b in zip(region, part, strict=True)]
