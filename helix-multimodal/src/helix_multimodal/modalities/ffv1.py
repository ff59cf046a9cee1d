"""Checks the sums that FFV1 keeps of each slice, which FFmpeg's decoder only writes a message about."""

from __future__ import annotations

import zlib

_FOOTER = 8
"""Bytes behind a slice: its size (3), a status (1) and what makes its sum 0 (4); RFC 9043, 4.9."""
_MIRRORED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))


def is_damaged(packet: bytes) -> bool | None:
    """Whether the sum of some slice of a frame is wrong; None where there seem to be none.

    Args:
        packet: One coded frame. Those of versions 0 and 1 have no sums, nor have others that were written
            without.
    """
    found = None
    for piece in _slices(packet):
        found = bool(found) or _sum(piece) != 0
    return found


def _slices(packet: bytes) -> list[bytes]:
    """Return the slices with their footers, the last one first; none where sizes do not add up."""
    found, end = [], len(packet)
    while end > 0:
        start = end - _FOOTER - int.from_bytes(packet[end - _FOOTER : end - _FOOTER + 3], "big")
        if end < _FOOTER or start < 0 or start >= end - _FOOTER:
            return []
        found.append(packet[start:end])
        end = start
    return found


def _sum(data: bytes) -> int:
    """Return the CRC-32 whose bits go from the highest to the lowest, from 0 on (RFC 9043, 4.9.3).

    zlib's goes the other way, from all ones to all ones: its result is mirrored, which 0 is either way.
    """
    return zlib.crc32(data.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
