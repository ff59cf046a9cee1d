"""A long text in pieces that end where a line does, and bytes apart from the text among them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_data.byte_stream import Bytes, ByteStream

# What "surrogateescape" makes of bytes that are no UTF-8; text itself never holds such characters.
_ESCAPED = re.compile("([\udc80-\udcff]+)")


def pieces_of_lines(stream: ByteStream, start: int, stop: int, *, size: int) -> Iterator[Bytes]:
    """Yield bytes ``start`` to ``stop`` in pieces of at most `size` bytes.

    A piece ends where a line does, or else where a character does, which may be 3 bytes further on.
    """
    while start < stop:
        end = min(start + size, stop)
        piece = stream.read(start, end)
        if end < stop:
            newlines = np.flatnonzero(piece == ord("\n"))
            end = start + int(newlines[-1]) + 1 if newlines.size else next_character(stream, end)
            piece = stream.read(start, end)
        yield piece
        start = end


def next_character(stream: ByteStream, place: int) -> int:
    """Return the first place from `place` on at which a character of UTF-8 begins, at most 3 bytes on."""
    ahead = stream.read(place, min(place + 4, len(stream)))
    begins = np.flatnonzero((ahead & 0xC0) != 0x80)
    return place + (int(begins[0]) if begins.size else len(ahead))


def text_and_bytes(data: bytes) -> Iterator[str | bytes]:
    """Yield what is UTF-8 as text and what is not as bytes, in order and without empty parts."""
    for index, part in enumerate(_ESCAPED.split(data.decode("utf-8", "surrogateescape"))):
        if part:
            yield part.encode("utf-8", "surrogateescape") if index % 2 else part
