"""Tells, from the first bytes of a file of sound or of a film, which container it is and which of the two."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

Kind = Literal["audio", "video"]


class Container(NamedTuple):
    """A container of sound or of a film.

    Attributes:
        kind: Which of the two a file of it holds, as far as its first bytes tell.
        name: FFmpeg's name of its demuxer; libsndfile reads most of those of sound.
        likely: How likely the first bytes are of such a file, 0 to 1.
    """

    kind: Kind
    name: str
    likely: float


def container_of(head: bytes) -> Container | None:
    """Return what a file's first bytes say; None where they are of no container known here."""
    for pattern, found in _BEGINNINGS:
        if pattern.match(head):
            return found
    if head.startswith(b"OggS\0"):
        return _ogg(head)
    if _has_frames_of_mp3(head):
        return Container("audio", "mp3", 0.8)
    if _has_packets_of_ts(head):
        return Container("video", "mpegts", 0.9)
    return None


def _known(pattern: bytes, kind: Kind, name: str) -> tuple[re.Pattern[bytes], Container]:
    return re.compile(pattern, re.DOTALL), Container(kind, name, 0.97)


_BEGINNINGS = (
    _known(rb"(RIFF|RIFX|RF64|BW64).{4}WAVE", "audio", "wav"),
    _known(rb"FORM.{4}AIF[FC]", "audio", "aiff"),
    _known(rb"fLaC[\0\x80]\0\0\x22", "audio", "flac"),
    _known(rb"\.snd\0\0.{6}\0\0\0[\x01-\x1d]|dns\..{8}[\x01-\x1d]\0\0\0", "audio", "au"),
    _known(rb"ID3[\x02-\x04].{6}", "audio", "mp3"),
    _known(rb"caff\0\x01", "audio", "caf"),
    _known(rb"riff\x2e\x91\xcf\x11", "audio", "w64"),
    _known(rb"NIST_1A\n", "audio", "nistsphere"),
    _known(rb".{4}ftypM4[AB] ", "audio", "mov"),
    _known(rb"#!AMR(-WB)?\n", "audio", "amr"),
    _known(rb"wvpk.{4}[\x02-\x10]\x04", "audio", "wv"),
    _known(rb"Creative Voice File\x1a", "audio", "voc"),
    _known(rb"RIFF.{4}AVI ", "video", "avi"),
    _known(rb"\x1a\x45\xdf\xa3.{0,60}(matroska|webm)", "video", "matroska"),
    _known(rb"FLV\x01[\0\x01\x04\x05]\0\0\0\x09", "video", "flv"),
    _known(rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "asf"),
    _known(rb"\0\0\x01\xba[\x21\x31\x44-\x7f]", "video", "mpeg"),
    _known(rb"\0\0\x01\xb3.{8}", "video", "mpegvideo"),
    _known(rb"YUV4MPEG2 ", "video", "yuv4mpegpipe"),
    # The brands of pictures (AVIF, HEIF) are left out; sound alone (M4A, M4B) comes above.
    _known(rb".{4}ftyp(?!avi[fs]|hei[cxms]|hev[cx]|mif1|msf1)[ -~]{4}", "video", "mov"),
    _known(rb"\0.{3}(moov\0.{3}mvhd|mdat|wide\0\0|free\0.{3}mdat)", "video", "mov"),
)
_IN_OGG: tuple[tuple[bytes, Kind], ...] = (
    (b"\x80theora", "video"),
    (b"BBCD\0", "video"),
    (b"OVP80", "video"),
    (b"\1vorbis", "audio"),
    (b"OpusHead", "audio"),
    (b"\x7fFLAC", "audio"),
    (b"Speex   ", "audio"),
)
_KBITS = {
    # Of MPEG 1, layers 1 to 3, and of MPEG 2 and 2.5: ISO 11172-3, 2.4.2.3, and ISO 13818-3, 2.4.2.3.
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


def _ogg(head: bytes) -> Container:
    """A film has a stream of pictures, wherever among the first pages it begins."""
    for mark, kind in _IN_OGG:
        if mark in head:
            return Container(kind, "ogg", 0.97)
    return Container("audio", "ogg", 0.4)


def _has_frames_of_mp3(head: bytes) -> bool:
    """Whether two frames of MPEG sound follow each other: one begins with too little that is its own."""
    length = _length_of_frame(head[:4])
    return bool(length) and bool(_length_of_frame(head[length : length + 4]))


def _length_of_frame(header: bytes) -> int:
    """Return the bytes of a frame of MPEG sound, or 0 where there is none (ISO 11172-3, 2.4.3.1)."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return 0
    version, layer = header[1] >> 3 & 3, header[1] >> 1 & 3
    bits, rate = header[2] >> 4, header[2] >> 2 & 3
    if version == 1 or layer == 0 or bits in (0, 15) or rate == 3:
        return 0
    per_second = _KBITS[(3 if version == 3 else 2, layer)][bits - 1] * 1000
    hertz, padding = _RATES[version][rate], header[2] >> 1 & 1
    if layer == 3:
        return (12 * per_second // hertz + padding) * 4
    n_samples = 72 if layer == 1 and version != 3 else 144
    return n_samples * per_second // hertz + padding


def _has_packets_of_ts(head: bytes) -> bool:
    """Whether five packets of an MPEG transport stream (188 bytes, or 192 with times) begin in a row."""
    return any(
        len(head) > start + 4 * size and all(head[start + size * number] == 0x47 for number in range(5))
        for start, size in ((0, 188), (4, 192))
    )
