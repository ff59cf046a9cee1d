"""Tells what a file is: by its first bytes, by what repeats in it, by modalities, and by its name last."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import puremagic

from helix_multimodal.detection.finding import HEAD, Finding
from helix_multimodal.detection.headerless import by_structure
from helix_multimodal.detection.languages import EXTENSIONS, language
from helix_multimodal.detection.signatures import by_signature
from helix_multimodal.files import reading
from helix_multimodal.modalities.point_files.obj import is_obj
from helix_multimodal.modalities.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_kernel.modality import Modality, Source

_SURE = 0.5
_LEAST_MAGIC = 0.4
_SAME = {
    "jpg": "jpeg",
    "jpe": "jpeg",
    "jfif": "jpeg",
    "tif": "tiff",
    "aif": "aiff",
    "snd": "au",
    "oga": "ogg",
    "opus": "ogg",
    "ogv": "ogg",
    "ras": "sun-raster",
    "rgb": "sgi",
    "exr": "openexr",
    "jp2": "jpeg2000",
    "mkv": "matroska",
    "mov": "quicktime",
    "m4v": "mp4",
    "mpg": "mpeg-ps",
    "mpeg": "mpeg-ps",
    "ts": "mpeg-ts",
    "wrl": "vrml",
    "laz": "las",
    "gz": "gzip",
    "tgz": "gzip",
    "bz2": "bzip2",
}
_KNOWN = re.compile(
    "png|jpeg|gif|webp|tiff|bmp|pbm|pgm|ppm|qoi|sun-raster|sgi|xbm|openexr|wav|aiff|aifc|au|flac|mp3|ogg|m4a|"
    "voc|avi|matroska|webm|mp4|quicktime|flv|mpeg-ps|ply|pcd|las|vrml|zip|gzip|bzip2|xz|tar|pdf|sqlite|npy"
)


def detect(
    source: Source, name: str | None = None, *, modalities: Mapping[str, Modality] | None = None
) -> Finding:
    """Return what a file is.

    Args:
        source: A path, or an open file, which is read from where it stands and put back there if it can seek.
        name: The file's name; left out: the path's.
        modalities: Modalities by name, which are asked about what no rule here knows.

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    with reading(source) as opened:
        head = opened.file.read(HEAD + 1)
        if opened.file.seekable():
            opened.file.seek(-len(head), 1)
    if name is None and isinstance(source, str | Path):
        name = Path(source).name
    return detect_head(head, name, modalities=modalities)


def detect_head(
    head: bytes, name: str | None = None, *, modalities: Mapping[str, Modality] | None = None
) -> Finding:
    """Return what a file is by its first bytes: all of them, if they are no more than `HEAD`."""
    finding = _by_content(head, name, modalities or {})
    said = _by_name(name)
    if not said or said == finding.format or not finding.format or said == finding.format.split("-")[0]:
        return finding
    if finding.kind == "text" and not _KNOWN.fullmatch(said):
        return finding
    wrong = f"; the name says {said}, which is wrong"
    return attrs.evolve(finding, reason=finding.reason + wrong)


def _by_content(head: bytes, name: str | None, modalities: Mapping[str, Modality]) -> Finding:
    if not head:
        return Finding("empty", "", 1.0, "it holds no byte")
    complete, head = len(head) <= HEAD, head[:HEAD]
    if found := by_signature(head):
        return found
    likely = Text().sniff(head, name)
    if likely > _SURE:
        return _text(head, likely, name, complete=complete)
    found = by_structure(head)
    if found and found.score > _SURE:
        return found
    return _by_modalities(head, name, modalities) or _by_magic(head) or found or _unknown(name)


def _text(head: bytes, likely: float, name: str | None, *, complete: bool) -> Finding:
    if is_obj(head + b"\n" if complete else head):
        return Finding("point-cloud", "obj", 0.9, "text whose lines are those of OBJ files")
    found = language(head, complete=complete, name=name)
    said = "text" if found == "plain" else f"text that reads as {found}"
    return Finding("text", found, likely, f"{said}: UTF-8 or UTF-16 without control characters")


def _by_modalities(head: bytes, name: str | None, modalities: Mapping[str, Modality]) -> Finding | None:
    likely = {kind: modality.sniff(head, name) for kind, modality in modalities.items()}
    best = max(likely, key=lambda kind: likely[kind], default="")
    if not best or likely[best] <= _SURE:
        return None
    return Finding(best, "", likely[best], f"the modality {best} knows it")


def _by_magic(head: bytes) -> Finding | None:
    try:
        best = puremagic.magic_string(head)[0]
    except puremagic.PureError:
        return None
    if best.confidence < _LEAST_MAGIC:
        return None
    kind = best.mime_type.partition("/")[0]
    return Finding(
        kind if kind in ("image", "audio", "video") else "other",
        best.extension.lstrip("."),
        min(0.9, best.confidence),
        f"puremagic knows its beginning: {best.name or best.mime_type}",
    )


def _unknown(name: str | None) -> Finding:
    said = _by_name(name)
    return Finding("unknown", "", 0.0, "nothing tells" + (f"; the name says {said}" if said else ""))


def _by_name(name: str | None) -> str:
    """Return the format that a name's extension means, or nothing."""
    extension = (name or "").rpartition(".")[2].lower()
    found = _SAME.get(extension, extension)
    return found if _KNOWN.fullmatch(found) else EXTENSIONS.get(extension, "")
