"""The shards of a split as one text: windows copied out of it, and where its documents end."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.mapped import MappedShard

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.shards.index import Shard
    from helix_data.shards.mapped import MappedFile

# Each map holds a file descriptor, and a process is often allowed only 256 of them.
_MAX_OPEN_MAPS = 64


class ShardStream:
    """The documents of shards one after another, as if they were one array of bytes.

    Files are mapped when they are first touched, and at most 64 shards at a time.

    Args:
        folder: Where the shards lie.
        shards: In order; there may be none.

    Raises:
        DataError: A file has gone, or has another size than the index says.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder = folder
        self._shards = [MappedShard.open(folder, shard) for shard in shards]
        self._ends = np.cumsum([shard.bytes for shard in shards], dtype=np.int64)
        self._begins = self._ends - np.array([shard.bytes for shard in shards], dtype=np.int64)
        self._bytes = lru_cache(maxsize=_MAX_OPEN_MAPS)(self._map_bytes)
        self._document_ends = lru_cache(maxsize=_MAX_OPEN_MAPS)(self._map_ends)

    def __reduce__(self) -> tuple[type[ShardStream], tuple[Path, list[Shard]]]:
        # Another process maps the files itself.
        return ShardStream, (self._folder, [mapped.shard for mapped in self._shards])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    @property
    def shards(self) -> Sequence[MappedShard]:
        """The shards in order."""
        return self._shards

    def begin_of(self, shard: int) -> int:
        """Return the place of a shard's first byte."""
        return int(self._begins[shard])

    def ends_in(self, shard: int) -> NDArray[np.int64]:
        """Return where the documents of a shard end in the shard, (documents,) int64, read-only.

        Raises:
            DataError: The file has gone or changed its size.
        """
        return self._document_ends(shard).array().view("<i8")

    def gather(self, starts: NDArray[np.int64], width: int) -> Bytes:
        """Copy windows out of the text.

        Args:
            starts: (K,) int64, first byte of each window; all end inside the text.
            width: Bytes in a window, at least 1.

        Returns:
            (K, width) uint8.

        Raises:
            DataError: A file has gone or changed its size.
        """
        windows = np.empty((len(starts), width), dtype=np.uint8)
        # A slice of a memoryview costs a third of one of an array, which is what small windows cost.
        room = memoryview(windows.reshape(-1))  # type: ignore[arg-type]  # a stub of its own
        shards = np.searchsorted(self._ends, starts, side="right")
        filled = 0
        for start, shard, begin in zip(
            starts.tolist(), shards.tolist(), self._begins[shards].tolist(), strict=True
        ):
            piece = self._bytes(shard).view()[start - begin : start - begin + width]
            if len(piece) < width:
                piece = self.read(start, start + width).data
            room[filled : filled + width] = piece
            filled += width
        return windows

    def read(self, start: int, stop: int) -> Bytes:
        """Return bytes ``start`` to ``stop``: (stop - start,) uint8, read-only; a copy across shards.

        Raises:
            DataError: A file has gone or changed its size.
        """
        pieces = [self._bytes(shard).array()[first:last] for shard, first, last in self._parts(start, stop)]
        joined = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint8), *pieces])
        joined.flags.writeable = False
        return joined

    def document_starts(self, starts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """Tell which bytes of windows are the first of a document.

        Args:
            starts: (K,) int64, first byte of each window; all end inside the text.
            width: Bytes in a window.

        Returns:
            (K, width) bool.

        Raises:
            DataError: A file has gone or changed its size.
        """
        # Searched by bisection in Python: a call into NumPy for each window costs several times as much.
        places: list[int] = []
        shards = np.searchsorted(self._ends, starts, side="right")
        sizes = self._ends[shards] - self._begins[shards]
        local = starts - self._begins[shards]
        for row, (shard, low, size) in enumerate(
            zip(shards.tolist(), local.tolist(), sizes.tolist(), strict=True)
        ):
            if low + width <= size:
                places += self._begun(shard, low, low + width, row * width)
                continue
            start = int(starts[row])
            for part, first, last in self._parts(start, start + width):
                column = self.begin_of(part) + first - start
                places += self._begun(part, first, last, row * width + column)
        found = np.zeros(len(starts) * width, dtype=np.bool_)
        found[places] = True
        return found.reshape(len(starts), width)

    def _begun(self, shard: int, low: int, high: int, offset: int) -> list[int]:
        """Return the places, from `offset` on, where documents begin among bytes of a shard."""
        ends = self._document_ends(shard).view().cast("q")
        first = bisect_left(ends, low)
        begun = ends[first : bisect_left(ends, high, first)].tolist()
        return [offset + place - low for place in ([0, *begun] if low == 0 else begun)]

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield the shards that bytes lie in, each with the first of them and the end, counted in it."""
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while start < stop:
            begin, end = self.begin_of(shard), int(self._ends[shard])
            yield shard, start - begin, min(stop, end) - begin
            start = end
            shard += 1

    def _map_bytes(self, shard: int) -> MappedFile:
        return self._shards[shard].map_bytes()

    def _map_ends(self, shard: int) -> MappedFile:
        return self._shards[shard].map_ends()
