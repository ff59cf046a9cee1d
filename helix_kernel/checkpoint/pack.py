"""Writing one large file as fast as the disk takes it, and not returning before the disk has it.

Several threads write aligned blocks past the page cache (``O_DIRECT``) while the next block is filled,
which keeps the disk's queue full. Where a file system knows no direct writes, the same blocks go through
the cache. Space is reserved first: a full disk is an error before anything is written.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from helix_kernel.checkpoint.durable import sync_descriptor

if TYPE_CHECKING:
    from pathlib import Path

ALIGNMENT = 64
"""Arrays begin at multiples of this many bytes."""

_BLOCK = 4 * 2**20
_SECTOR = 4096
_BUFFERS = 4
_DIRECT: int = getattr(os, "O_DIRECT", 0)


class PackWriter:
    """Writes a new file of no more than a known size from its beginning to its end.

    Use it as a context: the file is on the disk when the block ends without error.

    Args:
        path: The file; it must not exist.
        nbytes: The most bytes that will be written; so many are reserved until then.

    Raises:
        OSError: The system refuses; also from `write` and at the end.
    """

    def __init__(self, path: Path, nbytes: int) -> None:
        self._written = 0  # what has been handed out in blocks
        self._filled = 0  # of the block at hand
        self._small = nbytes <= _BLOCK
        self._descriptor = _create(path, 0 if self._small else _DIRECT)
        self._pending: deque[tuple[Future[None], memoryview]] = deque()
        self._pool = ThreadPoolExecutor(1 if self._small else _BUFFERS)
        try:
            if nbytes and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, 0, nbytes)
            self._block = _buffer()
        except BaseException:
            self._abandon()
            raise

    @property
    def position(self) -> int:
        """How many bytes were written."""
        return self._written + self._filled

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes; a memory that they are a view of may change once this returns."""
        left = memoryview(content)
        while left:
            n = min(_BLOCK - self._filled, len(left))
            self._block[self._filled : self._filled + n] = left[:n]
            self._filled += n
            left = left[n:]
            if self._filled == _BLOCK:
                self._hand_out(_BLOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            self._abandon()

    def _finish(self) -> None:
        nbytes = self.position
        if self._filled:
            end = -(-self._filled // _SECTOR) * _SECTOR
            self._block[self._filled : end] = bytes(end - self._filled)
            self._hand_out(end)
        while self._pending:
            self._pending.popleft()[0].result()
        os.ftruncate(self._descriptor, nbytes)
        sync_descriptor(self._descriptor)

    def _abandon(self) -> None:
        self._pool.shutdown()
        os.close(self._descriptor)

    def _hand_out(self, length: int) -> None:
        """Give the block at hand to a thread, and take a free one."""
        written = self._pool.submit(_write_all, self._descriptor, self._block[:length], self._written)
        self._pending.append((written, self._block))
        self._written += self._filled
        self._filled = 0
        if len(self._pending) < _BUFFERS:
            self._block = _buffer()
        else:
            future, self._block = self._pending.popleft()
            future.result()


def _create(path: Path, flags: int) -> int:
    try:
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | flags, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL or not flags:
            raise
    path.unlink(missing_ok=True)  # some file systems refuse only after they have made the file
    return _create(path, 0)


def _buffer() -> memoryview:
    """Return a block at the beginning of a page, as direct writes want it."""
    return memoryview(mmap.mmap(-1, _BLOCK))


def _write_all(descriptor: int, content: memoryview, offset: int) -> None:
    left = content
    while left:
        try:
            n = os.pwrite(descriptor, left, offset)
        except OSError as error:
            flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
            if error.errno != errno.EINVAL or not flags & _DIRECT:
                raise
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~_DIRECT)
            continue
        left = left[n:]
        offset += n
