"""Wavefront OBJ files: the vertices (``v``), their colours, and normals (``vn``) where each has one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.errors import DataError
from helix_multimodal.modalities.point_files.cloud import Cloud, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORDS = (
    b"v vn vt vp f l p o g s usemtl mtllib usemap maplib cstype deg surf parm trim hole curv curv2 end con "
    b"mg bevel c_interp d_interp lod shadow_obj trace_obj bmat step scrv sp ctech stech call csh".split()
)
_CORNER = re.compile(rb"(-?\d{1,18})/\d*/(-?\d{1,18})")


def is_obj(head: bytes) -> bool:
    """Whether a file reads as OBJ: each whole line begins with a word of the format, one is a vertex."""
    lines = [line.split() for line in head.split(b"\n")[:-1]]
    known = all(not words or words[0] in _WORDS or words[0].startswith(b"#") for words in lines)
    return known and any(len(words) >= 4 and words[0] == b"v" and _all_numbers(words[1:]) for words in lines)


def read(data: bytes, where: str, max_bytes: int) -> Cloud:
    """Return the vertices of a file as float64.

    Raises:
        DataError: The file is damaged, without vertices, or larger than allowed.
    """
    vertices = _table(data, b"v", where, max_bytes)
    if vertices is None:
        raise DataError(f"{where} has no vertices, which are lines of 'v x y z'")
    if vertices.shape[1] not in {3, 4, 6, 7}:
        raise DataError(f"{where} has vertices of {vertices.shape[1]} numbers; allowed are 3, 4, 6 and 7")
    normals = _table(data, b"vn", where, max_bytes)
    coloured = vertices.shape[1] >= 6
    return Cloud(
        points=np.ascontiguousarray(vertices[:, :3]),
        colours=_colours(vertices[:, -3:]) if coloured else None,
        normals=None if normals is None else _by_vertex(data, normals, len(vertices)),
    )


def write(cloud: Cloud) -> bytes:
    """Return a text, whose digits keep every number as it is, though not that it was a float32."""
    table = [cloud.points.astype(np.float64)]
    if cloud.colours is not None:
        table.append(cloud.colours / 255)
    rows = np.concatenate(table, axis=1).tolist()
    lines = ["v " + " ".join(map(repr, row)) for row in rows]
    if cloud.normals is not None:
        lines += ["vn " + " ".join(map(repr, row)) for row in cloud.normals.astype(np.float64).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _table(data: bytes, word: bytes, where: str, max_bytes: int) -> NDArray[np.float64] | None:
    """Return the numbers of all lines that begin with a word, a row each, or None where there are none."""
    lines = re.findall(rb"^[ \t]*" + word + rb"[ \t]+([^\r\n#]*)", data, re.MULTILINE)
    if not lines:
        return None
    widths = {len(line.split()) for line in lines}
    flat = numbers(b" ".join(lines), where, max_bytes) if len(widths) == 1 else np.empty(0)
    if len(widths) != 1 or len(flat) != len(lines) * max(widths) or not flat.size:
        raise DataError(f"{where} is damaged: its lines of {word.decode()!r} are not all of as many numbers")
    return flat.reshape(len(lines), -1)


def _colours(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return colours of 0 to 255; most programs write 0 to 1, some the bytes themselves."""
    finite = np.nan_to_num(values)
    scale = 255 if finite.max() <= 1 else 1
    return np.rint(np.clip(finite * scale, 0, 255)).astype(np.uint8)


def _by_vertex(data: bytes, normals: NDArray[np.float64], n_vertices: int) -> NDArray[Any] | None:
    """Return a normal for each vertex: as faces say, else in the vertices' order; None if that is not one."""
    if normals.shape[1] != 3:
        return None
    faces = b"\n".join(re.findall(rb"^[ \t]*f[ \t]([^\r\n]*)", data, re.MULTILINE))
    corners = np.array(_CORNER.findall(faces), dtype=np.int64).reshape(-1, 2)
    if not len(corners):
        return normals if len(normals) == n_vertices else None
    ends = np.array([n_vertices, len(normals)])
    places = np.where(corners > 0, corners - 1, corners + ends)
    if ((places < 0) | (places >= ends)).any():
        return None
    chosen = np.full(n_vertices, -1)
    chosen[places[:, 0]] = places[:, 1]
    one_each = (chosen >= 0).all() and (chosen[places[:, 0]] == places[:, 1]).all()
    return normals[chosen] if one_each else None


def _all_numbers(words: list[bytes]) -> bool:
    return all(re.fullmatch(rb"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", word) for word in words)
