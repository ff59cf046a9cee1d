"""Data that begin with no mark of their own: MPEG frames and packets that repeat, and bare PCM samples."""

from __future__ import annotations

import numpy as np

from helix_multimodal.detection.finding import Finding

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_KBITS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_PACKETS = {188: 0, 192: 4, 204: 0}
_SMOOTH = 0.1
_FEWEST = 256


def by_structure(head: bytes) -> Finding | None:
    """Return what a file without a mark is by what repeats in it, or None.

    Bare PCM is a guess, whose score of 0.3 says so: the samples of sound differ little from their
    neighbours, and so do those of some tables and pictures.
    """
    if frames := _mpeg_frames(head):
        return Finding("audio", "mp3", 0.9 if frames > 2 else 0.7, f"{frames} frames of MPEG audio in a row")
    for length, begins in _PACKETS.items():
        marks = head[begins::length]
        if len(marks) >= 4 and set(marks) == {0x47}:
            return Finding("video", "mpeg-ts", 0.95, f"packets of {length} bytes begin with 0x47")
    return _pcm(head)


def _mpeg_frames(head: bytes) -> int:
    """Return how many frames of MPEG audio follow one another from the beginning on; one alone is none."""
    place = count = 0
    kind: int | None = None
    while length := _frame_length(head[place : place + 4]):
        if kind not in (None, head[place + 1]):
            return 0
        kind = head[place + 1]
        place, count = place + length, count + 1
    whole = count > 1 and place + 4 > len(head)
    return count if whole or count > 3 else 0


def _frame_length(header: bytes) -> int:
    """Return a frame's bytes (ISO 11172-3, 2.4.2.3), or 0 where this is no header of one."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bits, rate, padding = header[2] >> 4, header[2] >> 2 & 3, header[2] >> 1 & 1
    if version == 1 or layer == 0 or bits in (0, 15) or rate == 3 or header[3] & 3 == 2:
        return 0
    kbits = _KBITS[3 if version == 3 else 2, layer][bits - 1]
    hertz = _RATES[version][rate]
    if layer == 3:
        return (12000 * kbits // hertz + padding) * 4
    return (144000 if version == 3 or layer == 2 else 72000) * kbits // hertz + padding


def _pcm(head: bytes) -> Finding | None:
    for dtype, name in (("<i2", "s16le"), (">i2", "s16be"), ("<f4", "f32le")):
        values = np.frombuffer(head[: len(head) // 4 * 4], dtype)
        if len(values) < _FEWEST:
            continue
        if dtype == "<f4" and not (np.isfinite(values).all() and 1e-4 < np.abs(values).max() <= 1):
            continue
        wide = values.astype(np.float64)
        power = np.mean((wide - wide.mean()) ** 2)
        if len(np.unique(values)) > _FEWEST // 8 and np.mean(np.diff(wide) ** 2) < _SMOOTH * power:
            return Finding(
                "audio",
                f"raw-pcm-{name}",
                0.3,
                f"no mark, but smooth as {name} samples of sound are: a guess, and no rate is known",
            )
    return None
