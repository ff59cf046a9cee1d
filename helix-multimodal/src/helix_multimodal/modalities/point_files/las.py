"""LAS files of airborne and ground scans, by laspy; compressed ones (LAZ) where a backend is installed."""

from __future__ import annotations

import datetime as dt
import io
import struct
from typing import TYPE_CHECKING, Any

import laspy
import numpy as np

from helix_kernel.errors import DataError, DependencyError
from helix_multimodal.files import check_size
from helix_multimodal.modalities.point_files.cloud import Cloud, colours_of, columns

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER = struct.Struct("<4s90xHIIBHI")
"""Signature, header's size, where points begin, records before them, format, size and number of points."""

_RECORD_BYTES = 54

_COMPRESSED = 0x80
_STEPS = 2**31 - 2
_EPOCH = dt.date(1970, 1, 1)


def is_las(head: bytes) -> bool:
    """Whether a file begins as LAS does."""
    return head.startswith(b"LASF")


def read(data: bytes, where: str, max_bytes: int) -> Cloud:
    """Return the points of a file, as float64: whole numbers of steps from an offset.

    Raises:
        DataError: The file is damaged, cut short, without points, or larger than allowed.
        DependencyError: The file is compressed and nothing installed unpacks it.
    """
    _check(data, where, max_bytes)
    try:
        with laspy.open(io.BytesIO(data), closefd=False) as reader:
            las = reader.read()
            scales, offsets = np.array(las.header.scales), np.array(las.header.offsets)
            steps = np.stack([las.X, las.Y, las.Z], axis=1)
            fields = {name: np.asarray(las[name]) for name in las.point_format.dimension_names}
    except Exception as error:
        raise DataError(f"{where} is damaged: {type(error).__name__}: {error}") from error
    if not len(steps):
        raise DataError(f"{where} has no points")
    colours = columns(fields, ("red", "green", "blue"))
    normals = columns(fields, ("NormalX", "NormalY", "NormalZ"))
    with np.errstate(invalid="ignore", over="ignore"):
        points = steps * scales + offsets
    return Cloud(
        points=points,
        colours=None if colours is None else colours_of(colours),
        normals=None if normals is None or normals.dtype.kind != "f" else normals,
    )


def write(cloud: Cloud) -> bytes:
    """Return a file of version 1.2, whose coordinates are rounded to whole steps.

    A step is the smallest power of ten with which the cloud fits into 31 bits along each axis, but no less
    than 1e-9; an error is half of that at most.
    """
    points = cloud.points.astype(np.float64)
    header = laspy.LasHeader(point_format=0 if cloud.colours is None else 2, version="1.2")
    header.creation_date = _EPOCH
    header.offsets = np.round(points.min(0))
    header.scales = _scales(np.abs(points - header.offsets).max(0))
    if cloud.normals is not None:
        kind = cloud.normals.dtype
        header.add_extra_dims([laspy.ExtraBytesParams(f"Normal{axis}", kind) for axis in "XYZ"])
    las = laspy.LasData(header)
    las.x, las.y, las.z = points.T
    if cloud.colours is not None:
        las.red, las.green, las.blue = cloud.colours.astype(np.uint16).T * 257
    if cloud.normals is not None:
        for axis, column in zip("XYZ", cloud.normals.T, strict=True):
            las[f"Normal{axis}"] = column
    file = io.BytesIO()
    las.write(file)
    return file.getvalue()


def _check(data: bytes, where: str, max_bytes: int) -> None:
    """Hold what the header says against the bytes that there are, before laspy makes room for it."""
    if len(data) < 227 or not is_las(data):
        raise DataError(f"{where} is no LAS file, or cut short: there is no whole header")
    _, header_size, start, records, point_format, size, count = _HEADER.unpack_from(data)
    if data[25] >= 4 and len(data) >= 255:
        later, count = struct.unpack_from("<IQ", data, 243)
        records += later
    if records * _RECORD_BYTES > len(data):
        raise DataError(
            f"{where} is damaged: it cannot hold the {records:,} records that its header tells of"
        )
    check_size(where, count * max(size, 48), max_bytes)
    if point_format & _COMPRESSED:
        if not laspy.LazBackend.detect_available():
            raise DependencyError(
                f"{where} is compressed (LAZ) and nothing installed unpacks it; mend by: pip install lazrs"
            )
    elif header_size > start or start + count * size > len(data):
        raise DataError(
            f"{where} is cut short: its header tells of {count:,} points of {size} bytes from byte "
            f"{start:,} on, there are {len(data):,} bytes"
        )


def _scales(reach: NDArray[Any]) -> NDArray[np.float64]:
    """Return the step of each axis."""
    least = np.maximum(reach / _STEPS, 1e-9)
    return 10.0 ** np.ceil(np.log10(least))
