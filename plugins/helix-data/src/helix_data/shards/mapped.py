"""A shard's files in memory, mapped and not read, with a clear end where they have gone or are cut off."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.shards.index import Shard


class MappedFile:
    """A file of a known size, mapped into memory.

    Args:
        path: Where it is.
        size: Its bytes, more than none, as the index has them.

    Raises:
        DataError: It has gone, or has another size.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path, self._size = path, size
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: a ValueError
            reason = error.strerror if isinstance(error, OSError) else "it is empty"
            raise DataError(f"{path}: cannot be opened: {reason}; {_mend(path)}") from error
        self._view = memoryview(self._map)
        self._array = np.frombuffer(self._map, dtype=np.uint8)
        self.view()

    def view(self) -> memoryview:
        """Return its bytes, read-only, to be touched at once.

        Raises:
            DataError: The file has another size by now: touching bytes past its end would end the process.
        """
        size = self._map.size()
        if size != self._size:
            raise DataError(
                f"{self._path}: has {size:,} bytes where the index says {self._size:,}; {_mend(self._path)}"
            )
        return self._view

    def array(self) -> Bytes:
        """Return what `view` does as an array (N,)."""
        self.view()
        return self._array


@attrs.frozen
class MappedShard:
    """A shard of an index, whose files are mapped when they are asked for.

    Args:
        folder: Where its files lie.
        shard: What the index says of it.
    """

    folder: Path
    shard: Shard

    @classmethod
    def open(cls, folder: Path, shard: Shard) -> MappedShard:
        """Take a shard, after checking that its files are there and have their sizes.

        Raises:
            DataError: They are not.
        """
        for name, (size, _) in shard.files.items():
            path = folder / name
            try:
                found = path.stat().st_size
            except OSError as error:
                raise DataError(f"{path}: cannot be read: {error.strerror}; {_mend(path)}") from error
            if found != size:
                raise DataError(f"{path}: has {found:,} bytes where the index says {size:,}; {_mend(path)}")
        return cls(folder, shard)

    def map_bytes(self) -> MappedFile:
        """Map the documents."""
        return MappedFile(self.folder / f"{self.shard.name}.bytes", self.shard.bytes)

    def map_ends(self) -> MappedFile:
        """Map the ends of the documents, 8 bytes each."""
        return MappedFile(self.folder / f"{self.shard.name}.ends", 8 * self.shard.documents)

    def data(self) -> Bytes:
        """Return the documents end to end, (N,) uint8, read-only."""
        return self.map_bytes().array()

    def ends(self) -> NDArray[np.int64]:
        """Return where each document ends, (documents,) int64, read-only."""
        # Written as uint64; no file reaches the half of its range where the two differ.
        return self.map_ends().array().view("<i8")


def _mend(path: Path) -> str:
    return f"put it back, or ingest again into {path.parent} with --restart (helix data verify checks all)"
