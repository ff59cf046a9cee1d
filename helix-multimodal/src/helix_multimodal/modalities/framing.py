"""Tells that a file of sound or of a film was cut short, by what its container says of its own length.

Decoders take the beginning of a file for all of it; what a header promises tells the two apart.
"""

from __future__ import annotations

import io
import math
import os
import re
from typing import TYPE_CHECKING, BinaryIO, Literal

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helix_multimodal.files import Opened

    Order = Literal["big", "little"]

_UNKNOWN = 0xFFFFFFFF
"""What writers to pipes, who cannot go back, put for a length of four bytes."""
_ENDLESS = 0x7FFF0000
"""What such lengths begin with where they are signed."""
_MOST_CHUNKS = 10_000
_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"uuid", b"meta", b"pnot"}
_BOXES |= {b"styp", b"sidx", b"ssix", b"moof", b"mfra", b"prft", b"emsg"}
_SEGMENT = b"\x18\x53\x80\x67"


class Window(io.RawIOBase):
    """A file from where it stands, as if it began there; reading and seeking, and no closing of the file."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._start = file, file.tell()
        self.length = file.seek(0, os.SEEK_END) - self._start
        file.seek(self._start)

    def readable(self) -> bool:
        """Return true."""
        return True

    def seekable(self) -> bool:
        """Return true."""
        return True

    def tell(self) -> int:
        """Return the place, counted from where the window begins."""
        return self._file.tell() - self._start

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place, or to the end of the window that is nearest to it."""
        if whence != os.SEEK_SET:
            offset += self.length if whence == os.SEEK_END else self.tell()
        place = min(max(0, offset), self.length)
        return self._file.seek(self._start + place) - self._start

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, or all that are left."""
        return self._file.read(size)

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # mypy: Buffer
        """Fill a buffer, and return how many bytes there were."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def windowed(opened: Opened, max_bytes: int) -> Window:
    """Return a window on a file; of one that cannot be sought in, on its content.

    Raises:
        DataError: The content takes more than `max_bytes`.
    """
    seekable = getattr(opened.file, "seekable", None)
    if seekable is not None and seekable():
        return Window(opened.file)
    content = opened.file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise DataError(f"{opened.where} has more bytes than are allowed, max_bytes={max_bytes:,}")
    return Window(io.BytesIO(content))


def check_whole(window: Window, name: str, where: str) -> None:
    """Raise `DataError` where a file's container says that it is longer than it is.

    Args:
        window: The file, which stands at its beginning afterwards.
        name: The container, as `container_of` names it; others than those known here are taken as whole.
        where: What errors call the file.
    """
    check = _CHECKS.get(name)
    if check is None:
        return
    window.seek(0)
    needed = check(window)
    window.seek(0)
    if needed > window.length:
        raise DataError(
            f"{where} is cut short: it says that it has {needed:,} bytes, and has {window.length:,}"
        )


def _end_of_riff(window: Window) -> int:
    """Return where the data of a RIFF, RIFX, RF64 or AIFF file end; what may follow is not needed."""
    order: Order = "big" if window.read(4) in (b"FORM", b"RIFX") else "little"
    wide = end = 0
    for name, start, size in _chunks(window, order):
        if name == b"ds64":
            wide = int.from_bytes(window.read(16)[8:], "little")
        if name == b"data" and size >= _ENDLESS:
            return start + (wide if size == _UNKNOWN else 0)
        if name in (b"data", b"SSND") or (name == b"LIST" and window.read(4) == b"movi"):
            return start + size
        end = start + size
    return end


def _chunks(window: Window, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk's name, where its content starts, and its size; the window stands at the content."""
    place = 12
    for _ in range(_MOST_CHUNKS):
        window.seek(place)
        header = window.read(8)
        if len(header) < 8:
            return
        size = int.from_bytes(header[4:], order)
        yield header[:4], place + 8, size
        place += 8 + size + size % 2


def _end_of_au(window: Window) -> int:
    order: Order = "big" if window.read(4) == b".snd" else "little"
    start, size = (int.from_bytes(window.read(4), order) for _ in range(2))
    return start + (0 if size == _UNKNOWN else size)


def _end_of_caf(window: Window) -> int:
    """Return where the data end, of which the last chunk may say that nobody knows (Apple's CAF 1.0)."""
    place = 8
    for _ in range(_MOST_CHUNKS):
        window.seek(place)
        header = window.read(12)
        size = int.from_bytes(header[4:], "big", signed=True)
        place += 12
        if len(header) < 12:
            return place
        if size < 0:
            return 0
        place += size
        if header[:4] == b"data":
            return place
    return 0


def _end_of_w64(window: Window) -> int:
    """Return where the data of a Wave64 file end, whose chunks have long names and count their heads."""
    place = 40
    for _ in range(_MOST_CHUNKS):
        window.seek(place)
        header = window.read(24)
        size = max(24, int.from_bytes(header[16:], "little"))
        if len(header) < 24:
            return place + 24
        if header.startswith(b"data"):
            return place + size
        place += (size + 7) // 8 * 8
    return 0


def _end_of_nist(window: Window) -> int:
    """Return the length that the text at the beginning of a SPHERE file says; 0 for packed sound."""
    window.seek(8)
    start = window.read(8).strip()
    text = window.read(int(start) if start.isdigit() and int(start) < _MOST_CHUNKS else 0)
    said = dict(re.findall(rb"(sample_count|sample_n_bytes|channel_count) -i (\d{1,12})\b", text))
    if len(said) < 3 or b"shorten" in text:
        return 0
    return int(start) + math.prod(map(int, said.values()))


def _end_of_voc(window: Window) -> int:
    """Return where the last block ends, before the zero that ends the file."""
    window.seek(20)
    place = int.from_bytes(window.read(2), "little")
    for _ in range(_MOST_CHUNKS):
        window.seek(place)
        header = window.read(4)
        if len(header) < 4 or not header[0]:
            break
        place += 4 + int.from_bytes(header[1:], "little")
    return place


def _end_of_mp3(window: Window) -> int:
    """Return the bytes of all frames, where the first one has the tag in which encoders say so."""
    header = window.read(10)
    size = 0
    if header.startswith(b"ID3"):
        for byte in header[6:]:
            size = size << 7 | byte & 0x7F
        size += 10
    window.seek(size)
    found = re.search(rb"(Xing|Info)\0\0\0(.)(.{8})", window.read(64), re.DOTALL)
    if found is None or not found[2][0] & 2:
        return 0
    return int.from_bytes(found[3][4:8] if found[2][0] & 1 else found[3][:4], "big")


def _end_of_matroska(window: Window) -> int:
    """Return where the segment ends, of which a film is one (RFC 8794, 6; RFC 9559, 5.1)."""
    window.seek(4)
    size, place = _variable(window.read(8))
    window.seek(4 + place + (size or 0))
    start = 4 + place + (size or 0) + 4
    if window.read(4) != _SEGMENT:
        return 0
    size, place = _variable(window.read(8))
    return 0 if size is None else start + place + size


def _variable(data: bytes) -> tuple[int | None, int]:
    """Return an EBML number, None where it says that nobody knows, and the bytes it takes (RFC 8794, 4)."""
    if not data or not data[0]:
        return None, 0
    length = 9 - data[0].bit_length()
    bits = 7 * length
    value = int.from_bytes(data[:length], "big") & ((1 << bits) - 1)
    return (None if value == (1 << bits) - 1 else value), length


def _end_of_boxes(window: Window) -> int:
    """Return where the last known box of an MP4 or QuickTime file ends (ISO 14496-12, 4.2)."""
    place = 0
    for _ in range(_MOST_CHUNKS):
        window.seek(place)
        header = window.read(16)
        if len(header) < 8 or header[4:8] not in _BOXES:
            break
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:], "big")
        if size == 0:
            return window.length
        place += max(size, 8)
    return place


_CHECKS: dict[str, Callable[[Window], int]] = {
    "wav": _end_of_riff,
    "aiff": _end_of_riff,
    "avi": _end_of_riff,
    "au": _end_of_au,
    "caf": _end_of_caf,
    "w64": _end_of_w64,
    "nistsphere": _end_of_nist,
    "voc": _end_of_voc,
    "mp3": _end_of_mp3,
    "matroska": _end_of_matroska,
    "mov": _end_of_boxes,
}
