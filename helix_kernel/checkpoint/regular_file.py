"""Opening files that someone else made: pipes, devices and files that claim more than their disk are refused.

A pipe would keep its reader waiting for ever, a device has no end, and a file that is larger than the disk
it lies on is a claim without bytes. Symbolic links are followed, as caches of downloads use them:
what they lead to is read only if it has the size and the digests that the manifest gives.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_regular(path: Path) -> int:
    """Return a descriptor of a file to read.

    Raises:
        OSError: There is none, it cannot be read, or it is no ordinary file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _refuse_strange(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: Path, most: int) -> bytes:
    """Return the bytes of a file.

    Raises:
        OSError: As for `open_regular`, or it has more than `most` bytes.
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_size > most:
            raise OSError(errno.EFBIG, f"it has over {most} bytes")
        return file.read()


def _refuse_strange(descriptor: int) -> None:
    found, disk = os.fstat(descriptor), os.fstatvfs(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no ordinary file")
    if 0 < disk.f_blocks * disk.f_frsize < found.st_size:  # 0: a file system that does not say
        raise OSError(errno.EFBIG, f"it claims {found.st_size} bytes, more than its disk has")
