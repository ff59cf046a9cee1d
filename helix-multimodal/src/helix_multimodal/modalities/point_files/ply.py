"""PLY files: text and binary of either byte order, with lists, of which the vertices are read.

The format is Greg Turk's "The PLY Polygon File Format" (1994): a header of elements, each with a count and
properties, then the elements in their order. A property is a number, or a list that begins with its length.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.errors import DataError
from helix_multimodal.files import check_size
from helix_multimodal.modalities.point_files.cloud import Cloud, colours_of, columns, coordinates, numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

Columns = dict[str, "NDArray[Any]"]

_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_TYPES = (
    {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
    | {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
    | {"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"}
)
_HEADER_BYTES = 1 << 16
_COLOURS = (("red", "green", "blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue"))


@attrs.frozen
class _Property:
    """A number of an element, or a list, whose length has a type too; types as NumPy writes them."""

    name: str
    dtype: str
    length: str | None = None


@attrs.frozen
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...] = ()

    @property
    def least(self) -> int:
        """Bytes that a row takes at least, which is where all its lists are empty."""
        return sum(np.dtype(prop.length or prop.dtype).itemsize for prop in self.properties)


def is_ply(head: bytes) -> bool:
    """Whether a file begins as PLY does."""
    return head.startswith((b"ply\n", b"ply\r"))


def read(data: bytes, where: str, max_bytes: int) -> Cloud:
    """Return the vertices of a file, without its faces.

    Raises:
        DataError: The file is damaged, cut short, without vertices, or larger than allowed.
    """
    order, elements, place = _header(data, where)
    names = [element.name for element in elements]
    if "vertex" not in names or not elements[names.index("vertex")].count:
        raise DataError(f"{where} has no vertices; its elements are {names}")
    vertices = elements[names.index("vertex")]
    check_size(where, vertices.count * 8 * len(vertices.properties), max_bytes)
    if not order:
        data, place, order = numbers(data[place:], where, max_bytes).astype("<f8").tobytes(), 0, "<"
        elements = [_as_text(element) for element in elements]
    needed = sum(element.count * element.least for element in elements)
    if needed > len(data) - place:
        raise DataError(
            f"{where} is cut short: what its header tells of takes {needed:,} bytes or more once it is read, "
            f"there are {len(data) - place:,}"
        )
    found: Columns = {}
    for element in elements[: names.index("vertex") + 1]:
        found, place = _element(data, place, element, order, where)
    return _cloud(found, vertices, where)


def write(cloud: Cloud) -> bytes:
    """Return a binary file, little-endian, which keeps every number as it is."""
    parts: list[tuple[tuple[str, ...], NDArray[Any]]] = [(("x", "y", "z"), cloud.points)]
    if cloud.normals is not None:
        parts.append((("nx", "ny", "nz"), cloud.normals))
    if cloud.colours is not None:
        parts.append((_COLOURS[0], cloud.colours))
    fields = {name: part[:, at] for names, part in parts for at, name in enumerate(names)}
    types = {"float32": "float", "float64": "double", "uint8": "uchar"}
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(cloud.points)}"]
    head += [f"property {types[column.dtype.name]} {name}" for name, column in fields.items()]
    rows = np.empty(
        len(cloud.points), [(name, column.dtype.newbyteorder("<")) for name, column in fields.items()]
    )
    for name, column in fields.items():
        rows[name] = column
    return "\n".join([*head, "end_header", ""]).encode() + rows.tobytes()


def _header(data: bytes, where: str) -> tuple[str, list[_Element], int]:
    """Return the byte order ("" for text), the elements, and where the body begins."""
    end = data.find(b"end_header", 0, _HEADER_BYTES)
    if end < 0 or not is_ply(data):
        raise DataError(f"{where} is no PLY file, or cut short: there is no whole header")
    order, elements = None, []
    for line in data[:end].decode("latin-1").splitlines()[1:]:
        words = line.split()
        if not words or words[0] in {"comment", "obj_info"}:
            continue
        if words[0] == "format" and len(words) > 1:
            order = _ORDERS.get(words[1])
        elif words[0] == "element" and len(words) == 3 and words[2].isdecimal() and len(words[2]) < 19:
            elements.append(_Element(words[1], int(words[2])))
        elif words[0] == "property" and elements:
            last = elements[-1]
            elements[-1] = attrs.evolve(last, properties=(*last.properties, _property(words, where)))
        else:
            raise DataError(f"{where} is damaged: its header says {line[:80]!r}")
    if order is None:
        raise DataError(f"{where} is damaged: its header names no format out of {', '.join(_ORDERS)}")
    body = data.find(b"\n", end) + 1 or len(data)
    if data[end : end + 11] == b"end_header\r" and data[end + 11 : end + 12] != b"\n":
        body = end + 11
    return order, elements, body


def _property(words: list[str], where: str) -> _Property:
    if len(words) == 3 and words[1] in _TYPES:
        return _Property(words[2], _TYPES[words[1]])
    if len(words) == 5 and words[1] == "list" and words[2] in _TYPES and words[3] in _TYPES:
        return _Property(words[4], _TYPES[words[3]], _TYPES[words[2]])
    raise DataError(f"{where} is damaged: its header says {' '.join(words)[:80]!r}")


def _as_text(element: _Element) -> _Element:
    """Return an element all of whose numbers have become doubles."""
    properties = [attrs.evolve(prop, dtype="f8", length=prop.length and "f8") for prop in element.properties]
    return attrs.evolve(element, properties=tuple(properties))


def _element(data: bytes, place: int, element: _Element, order: str, where: str) -> tuple[Columns, int]:
    """Return an element's numbers by name, without its lists, and where the next begins."""
    if not element.count or not element.properties:
        return {}, place
    found = _all_alike(data, place, element, order, where)
    return found or _one_by_one(data, place, element, order, where)


def _all_alike(
    data: bytes, place: int, element: _Element, order: str, where: str
) -> tuple[Columns, int] | None:
    """Read rows whose lists are all as long as those of the first row; None where they are not."""
    lengths, size = [], 0
    for prop in element.properties:
        length = 1
        if prop.length:
            length = _length(data, place + size, order + prop.length, where)
            size += np.dtype(prop.length).itemsize
        lengths.append(length)
        size += length * np.dtype(prop.dtype).itemsize
    if place + size * element.count > len(data):
        return None
    dtype: list[Any] = []
    for at, (prop, length) in enumerate(zip(element.properties, lengths, strict=True)):
        dtype += [(f"length {at}", order + prop.length)] if prop.length else []
        dtype.append((f"{at}", order + prop.dtype, (length,) if prop.length else ()))
    rows = np.frombuffer(data, np.dtype(dtype), element.count, place)
    for at, (prop, length) in enumerate(zip(element.properties, lengths, strict=True)):
        if prop.length and not (rows[f"length {at}"] == length).all():
            return None
    found = {prop.name: rows[f"{at}"] for at, prop in enumerate(element.properties) if not prop.length}
    return found, place + size * element.count


def _one_by_one(data: bytes, place: int, element: _Element, order: str, where: str) -> tuple[Columns, int]:
    """Read rows whose lists differ in length."""
    starts = np.empty((element.count, len(element.properties)), np.int64)
    sizes = [np.dtype(prop.dtype).itemsize for prop in element.properties]
    for row in range(element.count):
        for at, prop in enumerate(element.properties):
            length = 1
            if prop.length:
                length = _length(data, place, order + prop.length, where)
                place += np.dtype(prop.length).itemsize
            starts[row, at] = place
            place += length * sizes[at]
        if place > len(data):
            raise DataError(f"{where} is cut short in row {row} of element {element.name!r}")
    everything = np.frombuffer(data, np.uint8)
    found = {}
    for at, prop in enumerate(element.properties):
        if not prop.length:
            taken = everything[starts[:, at, None] + np.arange(sizes[at])]
            found[prop.name] = taken.view(order + prop.dtype)[:, 0]
    return found, place


def _length(data: bytes, place: int, dtype: str, where: str) -> int:
    """Return the length of a list, which stands at a place."""
    if place + np.dtype(dtype).itemsize > len(data):
        raise DataError(f"{where} is cut short in a list")
    length = float(np.frombuffer(data, dtype, 1, place)[0])
    if not (length >= 0 and length.is_integer()):
        raise DataError(f"{where} is damaged: a list has the length {length:g}")
    return int(length)


def _cloud(found: Columns, vertices: _Element, where: str) -> Cloud:
    types = {prop.name: prop.dtype for prop in vertices.properties}
    with np.errstate(invalid="ignore", over="ignore"):
        fields = {name: column.astype(types[name], copy=False) for name, column in found.items()}
    points = columns(fields, ("x", "y", "z"))
    if points is None:
        raise DataError(f"{where} has vertices without x, y, z; they have {list(fields)}")
    normals = columns(fields, ("nx", "ny", "nz"))
    colours = [part for names in _COLOURS if (part := columns(fields, names)) is not None]
    return Cloud(
        points=coordinates(points),
        colours=colours_of(colours[0]) if colours else None,
        normals=None if normals is None else coordinates(normals),
    )
