"""Writes files and shards that are there whole or not at all, and on the disk once they are there."""

from __future__ import annotations

import hashlib
import os
from array import array
from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.index import Shard
from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from pathlib import Path

_PIECE = 1 << 20


class ShardWriter:
    """Writes one shard, a document at a time; nothing is there by its name before `close`.

    Args:
        folder: Where its files go.
        name: Of its files, without what follows the dot.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name
        self._file = AtomicFile(folder / f"{name}.bytes")
        self._ends = array("Q")
        self.nbytes = 0

    def add(self, document: bytes) -> None:
        """Add a document of at least one byte."""
        self._file.write(document)
        self.nbytes += len(document)
        self._ends.append(self.nbytes)

    def close(self) -> Shard | None:
        """Put the files in their places; return what the index says of them, or None for no document."""
        if not self._ends:
            self._file.abandon()
            return None
        sha256 = self._file.close()
        ends = np.array(self._ends, dtype="<u8").tobytes()
        return Shard(
            name=self._name,
            documents=len(self._ends),
            bytes=self.nbytes,
            sha256=sha256,
            ends_sha256=write_atomically(self._folder / f"{self._name}.ends", ends),
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.abandon()


class AtomicFile:
    """A file that is filled under another name, and takes its own when it is closed.

    Args:
        path: Its own name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Of this process's own, should a writer that was thought dead be alive.
        self._partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        self._file = self._partial.open("wb", buffering=0)
        self._digest = hashlib.sha256()
        self._pending = bytearray()

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self._pending += data
        if len(self._pending) >= _PIECE:
            self._flush()

    def close(self) -> str:
        """Bring it to the disk and give it its name; return the SHA-256 of its bytes."""
        self._flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._path)
        sync_folder(self._path.parent)
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Remove it, unless it has its name already."""
        self._file.close()
        self._partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        self._digest.update(self._pending)
        rest = memoryview(self._pending)
        while rest:
            rest = rest[self._file.write(rest) :]
        rest.release()
        self._pending = bytearray()


def write_atomically(path: Path, data: bytes) -> str:
    """Write a file whole, over what was there; return the SHA-256 of its bytes."""
    file = AtomicFile(path)
    try:
        file.write(data)
        return file.close()
    finally:
        file.abandon()


def cannot_write(folder: Path, error: OSError) -> HelixError:
    """Return the error that says why shards cannot be written, and what to do."""
    return HelixError(
        f"{folder}: cannot be written: {error.strerror or error}; what is finished is kept: make room and "
        "run the same again to go on"
    )


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
