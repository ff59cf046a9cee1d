"""VRML 2.0 files (.wrl): the vertices of all their shapes, where none is moved by a Transform."""

from __future__ import annotations

import re

import numpy as np

from helix_kernel.errors import DataError
from helix_multimodal.modalities.point_files.cloud import Cloud, numbers

_POINTS = re.compile(rb"\bCoordinate\s*\{\s*point\s*\[([^\[\]]*)\]")
_MOVES = re.compile(
    rb"\b(translation|rotation|scale)\s+([^\s,]+)[\s,]+([^\s,]+)[\s,]+([^\s,]+)(?:[\s,]+(\S+))?"
)
_UNMOVED = {b"translation": (0, 0, 0), b"scale": (1, 1, 1)}


def is_vrml(head: bytes) -> bool:
    """Whether a file begins as VRML does."""
    return head.startswith(b"#VRML V2.0")


def read(data: bytes, where: str, max_bytes: int) -> Cloud:
    """Return the vertices of a file as float32, the precision that the format has.

    Raises:
        DataError: The file is damaged, without vertices, larger than allowed, or moves its shapes.
    """
    data = re.sub(rb"#[^\r\n]*", b"", data)
    if any(_moves(*found) for found in _MOVES.findall(data)):
        raise DataError(f"{where} moves its shapes by a Transform; only files without are read")
    text = b" ".join(_POINTS.findall(data)).replace(b",", b" ")
    flat = numbers(text, where, max_bytes)
    if not flat.size:
        raise DataError(f"{where} has no vertices, which stand in 'Coordinate' after 'point'")
    if flat.size % 3:
        raise DataError(
            f"{where} is damaged: its vertices are {flat.size} numbers, which is no multiple of 3"
        )
    with np.errstate(over="ignore"):
        return Cloud(points=flat.reshape(-1, 3).astype(np.float32))


def _moves(word: bytes, *values: bytes) -> bool:
    """Whether a Transform's field says something else than that all stays where it is."""
    try:
        given = [float(value) for value in values if value]
    except ValueError:
        given = [float(value) for value in values[:3] if _is_number(value)]
    if word == b"rotation":
        return len(given) != 4 or given[3] != 0
    return tuple(given[:3]) != _UNMOVED[word]


def _is_number(value: bytes) -> bool:
    return re.fullmatch(rb"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", value) is not None
