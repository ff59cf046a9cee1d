"""Files for tests: beginnings of formats that are rarely one's own, and a disk that is full."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

FOREIGN_HEADS: dict[str, bytes] = {
    "an ELF program": b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00\x01\x00\x00\x00" + bytes(200),
    "an SQLite database": b"SQLite format 3\x00\x10\x00\x01\x01\x00\x40\x20\x20" + bytes(200),
    "gzip data": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff" + bytes(range(128, 256)),
    "a Java class": b"\xca\xfe\xba\xbe\x00\x00\x00\x41\x00\xff" + bytes(range(200, 256)),
    "zeros": bytes(512),
}
"""The first bytes of files, by what they are."""


def files_limited_to(size: int, action: Callable[[], None]) -> Exception | None:
    """Do something while no file may grow beyond a size, as if the disk were full, and return its error.

    Args:
        size: In bytes. It holds for all files that the process writes meanwhile.
        action: What is to fail.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        action()
    except Exception as error:  # noqa: BLE001 - whatever the disk's error becomes
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return None
