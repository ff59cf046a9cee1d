"""PCD files of the Point Cloud Library, version 0.7: text, binary and compressed by LZF.

The header is described at https://pointclouds.org/documentation/tutorials/pcd_file_format.html. In a
compressed body all of the first field comes first, then all of the second, and so on.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.errors import DataError
from helix_multimodal.files import check_size
from helix_multimodal.modalities.point_files.cloud import Cloud, columns, coordinates, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = {"I": "i", "U": "u", "F": "f"}
_HEADER_BYTES = 1 << 16
_NORMALS = ("normal_x", "normal_y", "normal_z")


def is_pcd(head: bytes) -> bool:
    """Whether a file begins as PCD does: maybe comments, then maybe VERSION, then FIELDS."""
    return re.match(rb"(?:#[^\n]*\n)*(?:# \.PCD v|(?:VERSION +[.\d]+\s+)?FIELDS +\S)", head) is not None


def read(data: bytes, where: str, max_bytes: int) -> Cloud:
    """Return the points of a file, those without a place (NaN) among them.

    Raises:
        DataError: The file is damaged, cut short, or larger than allowed.
    """
    header, place = _header(data, where)
    dtype, count = _dtype(header, where), _count(header, where)
    check_size(where, count * max(dtype.itemsize, 8 * len(dtype.names or ())), max_bytes)
    way = header["DATA"][0] if header["DATA"] else ""
    if way == "binary":
        _enough(len(data) - place, count * dtype.itemsize, where)
        rows: Any = np.frombuffer(data, dtype, count, place)
    elif way == "binary_compressed":
        rows = _compressed(data, place, dtype, count, where)
    elif way == "ascii":
        rows = _text(data[place:], dtype, count, where, max_bytes)
    else:
        raise DataError(f"{where} has DATA {way[:40]!r}; known are ascii, binary and binary_compressed")
    return _cloud(rows, dtype, where)


def write(cloud: Cloud) -> bytes:
    """Return a binary file; a double stays a double."""
    parts: list[tuple[str, NDArray[Any]]] = list(zip("xyz", cloud.points.T, strict=True))
    if cloud.normals is not None:
        parts += zip(_NORMALS, cloud.normals.T, strict=True)
    if cloud.colours is not None:
        red, green, blue = cloud.colours.astype(np.uint32).T
        parts.append(("rgb", (red << 16 | green << 8 | blue).astype(np.uint32)))
    rows = np.empty(len(cloud.points), [(name, part.dtype.newbyteorder("<")) for name, part in parts])
    for name, part in parts:
        rows[name] = part
    head = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(name for name, _ in parts)}",
        f"SIZE {' '.join(str(part.dtype.itemsize) for _, part in parts)}",
        f"TYPE {' '.join(part.dtype.kind.upper() for _, part in parts)}",
        f"COUNT {' '.join('1' for _ in parts)}",
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
        "",
    ]
    return "\n".join(head).encode() + rows.tobytes()


def decompress(packed: bytes, size: int, where: str) -> bytes:
    """Return what LZF packed.

    Each step begins with a byte c: below 32, c + 1 bytes follow as they are; else its upper three bits (and
    a further byte, where they are 7) tell the length less 2 of a piece to repeat, its lower five and the
    next byte how far back that piece begins, less 1.

    Raises:
        DataError: What is packed does not have the size, or refers to what is not there.
    """
    out, place, end = bytearray(), 0, len(packed)
    try:
        while place < end and len(out) <= size:
            control = packed[place]
            place += 1
            if control < 32:
                if place + control >= end:
                    raise DataError(f"{where} is cut short in its compressed body")
                out += packed[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == 7:
                length += packed[place]
                place += 1
            back = ((control & 31) << 8 | packed[place]) + 1
            place += 1
            _repeat(out, back, length + 2, where)
    except IndexError:
        raise DataError(f"{where} is cut short in its compressed body") from None
    if len(out) != size:
        raise DataError(f"{where} is damaged: its compressed body does not hold the {size:,} bytes it says")
    return bytes(out)


def _repeat(out: bytearray, back: int, length: int, where: str) -> None:
    """Append a piece again, which may reach into what is being appended."""
    start = len(out) - back
    if start < 0:
        raise DataError(f"{where} is damaged: its compressed body refers to what is not there")
    piece = out[start : start + length]
    out += (piece * (length // len(piece) + 1))[:length]


def _header(data: bytes, where: str) -> tuple[dict[str, list[str]], int]:
    """Return the words of each line by the first of them, and where the body begins."""
    found = re.search(rb"^DATA[^\n]*(\n|\Z)", data[:_HEADER_BYTES], re.MULTILINE)
    if not found:
        raise DataError(f"{where} is no PCD file, or cut short: there is no whole header")
    lines = [line.split() for line in data[: found.end()].decode("latin-1").splitlines()]
    header = {words[0]: words[1:] for words in lines if words and not words[0].startswith("#")}
    for name in ("FIELDS", "SIZE", "TYPE", "WIDTH", "DATA"):
        if name not in header:
            raise DataError(f"{where} is damaged: its header has no line {name}")
    return header, found.end()


def _dtype(header: dict[str, list[str]], where: str) -> np.dtype[Any]:
    """Return the type of a point; the fields' names may repeat, so that they are numbered."""
    names = header["FIELDS"]
    sizes, kinds = header["SIZE"], header["TYPE"]
    repeats = header.get("COUNT", ["1"] * len(names))
    if not 0 < len(names) == len(sizes) == len(kinds) == len(repeats):
        raise DataError(f"{where} is damaged: FIELDS, SIZE, TYPE and COUNT differ in length")
    fields: list[Any] = []
    for at, (size, kind, repeat) in enumerate(zip(sizes, kinds, repeats, strict=True)):
        allowed = {"F": ("4", "8")}.get(kind, ("1", "2", "4", "8"))
        if kind not in _KINDS or size not in allowed or not re.fullmatch(r"[1-9]\d{0,5}", repeat):
            raise DataError(f"{where} is damaged: a field has SIZE {size}, TYPE {kind} and COUNT {repeat}")
        fields.append((f"{at} {names[at]}", f"<{_KINDS[kind]}{size}", (int(repeat),)))
    return np.dtype(fields)


def _count(header: dict[str, list[str]], where: str) -> int:
    said = [header["WIDTH"], header.get("HEIGHT", ["1"])]
    if not all(len(words) == 1 and re.fullmatch(r"\d{1,18}", words[0]) for words in said):
        raise DataError(f"{where} is damaged: it has WIDTH {said[0]} and HEIGHT {said[1]}")
    count = int(said[0][0]) * int(said[1][0])
    if header.get("POINTS", [str(count)]) != [str(count)]:
        raise DataError(f"{where} is damaged: POINTS is {header['POINTS']}, WIDTH times HEIGHT is {count}")
    if not count:
        raise DataError(f"{where} has no points")
    return count


def _enough(has: int, needs: int, where: str) -> None:
    if has < needs:
        raise DataError(f"{where} is cut short: its header tells of {needs:,} bytes, there are {has:,}")


def _compressed(data: bytes, place: int, dtype: np.dtype[Any], count: int, where: str) -> dict[str, Any]:
    """Return the columns of a compressed body."""
    _enough(len(data) - place, 8, where)
    packed, size = struct.unpack_from("<II", data, place)
    _enough(len(data) - place - 8, packed, where)
    if size != count * dtype.itemsize:
        raise DataError(
            f"{where} is damaged: its body has {size:,} bytes, its points {count * dtype.itemsize:,}"
        )
    body = decompress(data[place + 8 : place + 8 + packed], size, where)
    found, start = {}, 0
    for name in dtype.names or ():
        base, shape = dtype[name].subdtype or (dtype[name], ())
        found[name] = np.frombuffer(body, base, count * shape[0], start).reshape(count, *shape)
        start += count * dtype[name].itemsize
    return found


def _text(body: bytes, dtype: np.dtype[Any], count: int, where: str, max_bytes: int) -> dict[str, Any]:
    """Return the columns of a text."""
    widths = [dtype[name].shape[0] for name in dtype.names or ()]
    _enough(len(body), 2 * count * sum(widths) - 1, where)
    flat = numbers(body, where, max_bytes, count * sum(widths))
    if len(flat) != count * sum(widths):
        raise DataError(f"{where} is cut short: it has {len(flat):,} numbers of {count * sum(widths):,}")
    rows, found, start = flat.reshape(count, -1), {}, 0
    with np.errstate(invalid="ignore", over="ignore"):
        for name, width in zip(dtype.names or (), widths, strict=True):
            found[name] = rows[:, start : start + width].astype(dtype[name].base)
            start += width
    return found


def _cloud(rows: Any, dtype: np.dtype[Any], where: str) -> Cloud:
    fields = {name.partition(" ")[2].lower(): rows[name] for name in dtype.names or ()}
    fields = {name: column[:, 0] for name, column in fields.items() if column.shape[1] == 1}
    points = columns(fields, ("x", "y", "z"))
    if points is None:
        raise DataError(f"{where} has points without x, y, z; they have {list(fields)}")
    normals = columns(fields, _NORMALS)
    packed = fields.get("rgb", fields.get("rgba"))
    return Cloud(
        points=coordinates(points),
        colours=None if packed is None or packed.dtype.itemsize != 4 else _unpack(packed),
        normals=None if normals is None else coordinates(normals),
    )


def _unpack(packed: NDArray[Any]) -> NDArray[np.uint8]:
    """Return colours that stand in four bytes as 0xAARRGGBB, which many files call a float."""
    bits = np.ascontiguousarray(packed).view(np.uint32)
    return np.stack([bits >> 16 & 255, bits >> 8 & 255, bits & 255], axis=1).astype(np.uint8)
