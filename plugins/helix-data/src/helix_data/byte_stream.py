"""Many files read as one long array of bytes, memory-mapped and never copied as a whole."""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from bisect import bisect_right
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import attrs
import numpy as np
from numpy.typing import NDArray

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

Bytes = NDArray[np.uint8]

# Each map holds a file descriptor, and a process is often allowed only 256 of them.
_MAX_OPEN_MAPS = 128
_PIECE = 1 << 22


@attrs.frozen
class FileSegment:
    """A file that takes part in a stream.

    Args:
        path: Where it is.
        name: How errors call it: the argument that named it, and its path.
        size: Its bytes when the stream was put together.
    """

    path: Path
    name: str
    size: int

    @classmethod
    def of(cls, path: Path, name: str) -> FileSegment:
        """Measure a file.

        Raises:
            DataError: It is not there, not readable or not a regular file.
        """
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(f"{name}: cannot be read: {error.strerror}") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{name}: is not a regular file; give a file, a folder or a glob")
        if not os.access(path, os.R_OK):
            raise DataError(f"{name}: no permission to read it; change its mode or run as its owner")
        return cls(path, name, status.st_size)

    def load(self) -> Bytes:
        """Map the file into memory, read-only.

        Raises:
            DataError: It has gone, cannot be opened, or its size has changed.
        """
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size != self.size:
                    raise DataError(
                        f"{self.name}: had {self.size} bytes when the dataset was opened and has {size} now; "
                        "leave a corpus unchanged while it is in use, or start again"
                    )
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{self.name}: cannot be opened: {error.strerror}") from error
        return np.frombuffer(mapped, dtype=np.uint8)


@attrs.frozen(eq=False)
class MemorySegment:
    """Bytes that are in memory already.

    Args:
        data: (N,) uint8.
    """

    data: Bytes

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self.data.size

    def load(self) -> Bytes:
        """Return the bytes."""
        return self.data


Segment = FileSegment | MemorySegment


class ByteStream:
    """The segments one after another, as if they were one array.

    Files are mapped when they are first touched, and at most 128 maps are held at a time.

    Args:
        segments: The parts in order, none of them empty.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._segments = tuple(segments)
        self._ends = list(accumulate(segment.size for segment in self._segments))
        self._load = lru_cache(maxsize=_MAX_OPEN_MAPS)(self._load_segment)

    def __reduce__(self) -> tuple[type[ByteStream], tuple[tuple[Segment, ...]]]:
        # Another process maps the files itself.
        return ByteStream, (self._segments,)

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def pieces(self, start: int, stop: int) -> Iterator[Bytes]:
        """Yield bytes ``start`` to ``stop`` in order, as read-only views of the segments.

        Raises:
            DataError: A file has gone or changed its size.
        """
        index = bisect_right(self._ends, start)
        while start < stop:
            end = self._ends[index]
            begin = end - self._segments[index].size
            yield self._load(index)[start - begin : min(stop, end) - begin]
            start = end
            index += 1

    def read(self, start: int, stop: int) -> Bytes:
        """Return bytes ``start`` to ``stop``: (stop - start,) uint8, read-only.

        Inside one segment this is a view of the map; across segments it is a copy.
        """
        pieces = list(self.pieces(start, stop))
        joined = pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, np.uint8), *pieces])
        joined.flags.writeable = False
        return joined

    def gather(self, starts: NDArray[np.int64], width: int) -> Bytes:
        """Copy out windows.

        Args:
            starts: (K,) int64, first byte of each window.
            width: Bytes in a window.

        Returns:
            (K, width) uint8.
        """
        if len(self._segments) == 1:  # nothing to find out, which is most of what a small batch costs
            return _every_window(self._load(0), width)[starts]
        windows = np.empty((len(starts), width), dtype=np.uint8)
        ends = np.asarray(self._ends)
        segments = np.searchsorted(ends, starts, side="right")
        is_whole = starts + width <= ends[segments]
        for index in np.unique(segments[is_whole]).tolist():
            rows = np.flatnonzero(is_whole & (segments == index))
            begin = self._ends[index] - self._segments[index].size
            windows[rows] = _every_window(self._load(index), width)[starts[rows] - begin]
        for number in np.flatnonzero(~is_whole).tolist():
            row, start, filled = windows[number], int(starts[number]), 0
            for piece in self.pieces(start, start + width):
                row[filled : filled + piece.size] = piece
                filled += piece.size
        return windows

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes, in hexadecimal, reading them once as a stream."""
        digest = hashlib.sha256()
        for start in range(0, len(self), _PIECE):
            for piece in self.pieces(start, min(start + _PIECE, len(self))):
                digest.update(piece.data)
        return digest.hexdigest()

    def _load_segment(self, index: int) -> Bytes:
        return self._segments[index].load()


def _every_window(data: Bytes, width: int) -> Bytes:
    """Return the windows that begin at each byte, (N - width + 1, width), all of them views."""
    return np.ndarray((data.size - width + 1, width), np.uint8, buffer=data.data, strides=(1, 1))
