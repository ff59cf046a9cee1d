"""Formats that the first bytes tell, with what the bytes after them must be, so that two letters never do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from helix_multimodal.detection.finding import Finding
from helix_multimodal.modalities.point_files.las import is_las
from helix_multimodal.modalities.point_files.pcd import is_pcd
from helix_multimodal.modalities.point_files.ply import is_ply
from helix_multimodal.modalities.point_files.vrml import is_vrml

if TYPE_CHECKING:
    from collections.abc import Callable

_Rule = tuple[bytes, str, str]

_GAP = rb"(?:\s|(?<=\s)#[^\n]*+\n)++"  # possessive, so that no header takes long to be refused
_BEGINNINGS: tuple[_Rule, ...] = (
    (rb"\x89PNG\r\n\x1a\n", "image", "png"),
    (rb"\xff\xd8\xff[\xc0-\xfe]", "image", "jpeg"),
    (rb"GIF8[79]a", "image", "gif"),
    (rb"RIFF.{4}WEBPVP8[ LX]", "image", "webp"),
    (rb"(II\*\0.{4}|MM\0\*.{4})", "image", "tiff"),
    (rb"(II\+\0\x08\0\0\0|MM\0\+\0\x08\0\0)", "image", "bigtiff"),
    (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", "image", "bmp"),
    (rb"P[14]" + _GAP + rb"\d++" + _GAP + rb"\d++\s", "image", "pbm"),
    (rb"P[25](?:" + _GAP + rb"\d++){3}\s", "image", "pgm"),
    (rb"P[36](?:" + _GAP + rb"\d++){3}\s", "image", "ppm"),
    (rb"P7\nWIDTH ", "image", "pam"),
    (rb"qoif.{8}[\x03\x04][\x00\x01]", "image", "qoi"),
    (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51\0", "image", "jpeg2000"),
    (rb"\x59\xa6\x6a\x95.{12}", "image", "sun-raster"),
    (rb"\x01\xda[\x00\x01][\x01\x02]\0[\x01-\x03]", "image", "sgi"),
    (rb"\x76\x2f\x31\x01[\x01\x02]", "image", "openexr"),
    (
        rb"\s*+(/\*.*?\*/\s*+)?#define[ \t]+\w*width[ \t]+\d+\s+#define[ \t]+\w*height[ \t]+\d+",
        "image",
        "xbm",
    ),
    (rb"/\* XPM \*/", "image", "xpm"),
    (rb"8BPS\0[\x01\x02]", "image", "psd"),
    (rb"(RIFF|RIFX|RF64|BW64).{4}WAVE", "audio", "wav"),
    (rb"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb", "audio", "wave64"),
    (rb"FORM.{4}AIFF", "audio", "aiff"),
    (rb"FORM.{4}AIFC", "audio", "aifc"),
    (rb"FORM.{4}8SVX", "audio", "8svx"),
    (rb"(\.snd|dns\.).{12}", "audio", "au"),
    (rb"fLaC[\x00\x80]\0\0\x22", "audio", "flac"),
    (rb"ID3[\x02-\x04].{6}", "audio", "mp3"),
    (rb"caff\0\x01", "audio", "caf"),
    (rb"Creative Voice File\x1a", "audio", "voc"),
    (rb".{65}FSSD.{59}HCOM", "audio", "hcom"),
    (rb"SOUND\x1a", "audio", "sndtool"),
    (rb"NIST_1A\n", "audio", "nist-sphere"),
    (rb"#!AMR(-WB)?\n", "audio", "amr"),
    (rb"MThd\0\0\0\x06", "other", "midi"),
    (rb"wvpk", "audio", "wavpack"),
    (rb"RIFF.{4}AVI ", "video", "avi"),
    (rb"FLV\x01[\x00\x01\x04\x05]\0\0\0\x09", "video", "flv"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video", "asf"),
    (rb"\0\0\x01\xba[\x21\x44-\x7f]", "video", "mpeg-ps"),
    (rb"\0\0\x01\xb3.{6}", "video", "mpeg-video"),
    (rb"YUV4MPEG2 ", "video", "yuv4mpeg"),
    (rb"\x1f\x8b\x08[\x00-\x1f]", "archive", "gzip"),
    (rb"BZh[1-9]1AY&SY", "archive", "bzip2"),
    (rb"\xfd7zXZ\0", "archive", "xz"),
    (rb".{257}ustar(\0|  \0)", "archive", "tar"),
    (rb"\x28\xb5\x2f\xfd", "other", "zstd"),
    (rb"7z\xbc\xaf\x27\x1c", "other", "7z"),
    (rb"Rar!\x1a\x07", "other", "rar"),
    (rb"%PDF-\d", "other", "pdf"),
    (rb"\x7fELF[\x01\x02][\x01\x02]\x01", "other", "elf"),
    (rb"MZ.{58}.{4}", "other", "dos-program"),
    (rb"SQLite format 3\0", "other", "sqlite"),
    (rb"\x93NUMPY[\x01-\x03]\0", "other", "npy"),
    (rb"\x89HDF\r\n\x1a\n", "other", "hdf5"),
    (rb"\x80[\x02-\x05](\x95|\}|\]|c)", "other", "pickle"),
)
_COMPILED = tuple((re.compile(pattern, re.DOTALL), kind, name) for pattern, kind, name in _BEGINNINGS)

_OGG = (
    (b"\x80theora", "video", "ogg-theora"),
    (b"BBCD\0", "video", "ogg-dirac"),
    (b"OVP80", "video", "ogg-vp8"),
    (b"\x01vorbis", "audio", "ogg-vorbis"),
    (b"OpusHead", "audio", "ogg-opus"),
    (b"\x7fFLAC", "audio", "ogg-flac"),
    (b"Speex   ", "audio", "ogg-speex"),
)
_BRANDS = (
    (rb"avi[fs]", "image", "avif"),
    (rb"hei[cxms]|hev[cx]|mif1|msf1", "image", "heif"),
    (rb"M4[AB] ", "audio", "m4a"),
    (rb"qt  ", "video", "quicktime"),
    (rb"3g[2egprs].", "video", "3gp"),
)
_ZIPS = (
    (b"[Content_Types].xml", "office-document"),
    (b"mimetypeapplication/epub+zip", "epub"),
    (b"mimetypeapplication/vnd.oasis", "open-document"),
    (b"META-INF/", "jar"),
)


def by_signature(head: bytes) -> Finding | None:
    """Return what the first bytes say, or None where they say nothing."""
    for pattern, look in _CONTAINERS:
        if pattern.match(head):
            return look(head)
    for begins, name in _CLOUDS:
        if begins(head):
            return Finding("point-cloud", name, 0.97, f"it begins as {name} files do")
    for pattern, kind, name in _COMPILED:
        if pattern.match(head):
            return Finding(kind, name, 0.97, f"it begins as {name} files do")
    return None


def _ogg(head: bytes) -> Finding:
    for mark, kind, name in _OGG:
        if mark in head:
            return Finding(kind, name, 0.97, f"an Ogg file with a stream of {name.removeprefix('ogg-')}")
    return Finding("audio", "ogg", 0.6, "an Ogg file whose streams are of no known kind")


def _mp4(head: bytes) -> Finding:
    for pattern, kind, name in _BRANDS:
        if re.match(pattern, head[8:12], re.DOTALL):
            return Finding(kind, name, 0.97, f"its ftyp box has the brand {_shown(head[8:12])}")
    return Finding("video", "mp4", 0.95, f"its ftyp box has the brand {_shown(head[8:12])}")


def _matroska(head: bytes) -> Finding:
    name = "webm" if b"webm" in head[:64] else "matroska"
    return Finding("video", name, 0.97, f"an EBML file of type {name}")


def _zip(head: bytes) -> Finding:
    for mark, name in _ZIPS:
        if mark in head[:256]:
            return Finding("other", name, 0.95, f"a zip file whose first member is that of {name} files")
    return Finding("archive", "zip", 0.97, "it begins as zip files do")


def _shown(name: bytes) -> str:
    return repr(name.decode("ascii", "backslashreplace"))


_CLOUDS = ((is_ply, "ply"), (is_pcd, "pcd"), (is_las, "las"), (is_vrml, "vrml"))
_CONTAINERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Finding]], ...] = (
    (re.compile(rb"OggS\0"), _ogg),
    (re.compile(rb"....ftyp", re.DOTALL), _mp4),
    (re.compile(rb"\x1a\x45\xdf\xa3"), _matroska),
    (re.compile(rb"PK(\x03\x04|\x05\x06)"), _zip),
)
