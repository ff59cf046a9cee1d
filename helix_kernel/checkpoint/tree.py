"""A nested state as one JSON document with its arrays taken out, and back.

Plain JSON stays as it is. What JSON cannot say is an object with one key that begins with ``$``:
``$array`` (a reference by path), ``$tuple``, ``$float`` (NaN with its payload and infinities, as the
hexadecimal of the IEEE 754 double), ``$int`` (hexadecimal, beyond 53 bits, where other readers of
JSON lose digits) and ``$dict`` (pairs, for mappings with keys that are not plain strings).
"""

from __future__ import annotations

import functools
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import quote

from helix_kernel.checkpoint.arrays import identity, is_array
from helix_kernel.errors import ArgumentError, CheckpointError

MAX_DEPTH = 100
UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, RecursionError, struct.error)
"""What `Decoder.decode` raises of a document that no `Encoder` wrote."""
_EXACT_INT = 2**53
_SEGMENT_LENGTH = 120

Key = str | int
Place = tuple[Key, ...]


class Encoder:
    """Takes the arrays out of a state and gives each its path.

    Attributes:
        arrays: Path → the array as it was given. Holding it keeps `identity` meaningful.
        ties: Path that a tied array would have had → the path under which it is stored.
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}
        self.ties: dict[str, str] = {}
        self._paths = _Paths()
        self._stored: dict[Any, str] = {}

    def encode(self, value: Any, place: Place = ()) -> Any:
        """Return the value as JSON.

        Raises:
            ArgumentError: A key or value is of a type that no checkpoint holds.
        """
        if len(place) > MAX_DEPTH:
            raise ArgumentError(
                f"state {path_of(place[:4])!r}/… is nested over {MAX_DEPTH} deep, or in itself"
            )
        if value is None or isinstance(value, bool):
            return value
        if is_array(value) and not isinstance(value, str):  # numpy has a str that is a scalar of its own
            return {"$array": self._store(value, place)}
        if isinstance(value, Mapping):
            return self._mapping(value, place)
        if isinstance(value, list | tuple):
            items = [self.encode(item, (*place, index)) for index, item in enumerate(value)]
            return items if isinstance(value, list) else {"$tuple": items}
        return _scalar(value, place)

    def _mapping(self, value: Mapping[Any, Any], place: Place) -> Any:
        for key in value:
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise ArgumentError(f"state {path_of(place)!r} has the key {key!r}; allowed are str and int")
        items = [(key, self.encode(item, (*place, key))) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [[_scalar(key, place), item] for key, item in items]}

    def _store(self, value: Any, place: Place) -> str:
        path = self._paths.claim(place)
        key = identity(value)
        if key is not None and self._stored.setdefault(key, path) != path:
            self.ties[path] = self._stored[key]
        else:
            self.arrays[path] = value
        return path


class Decoder:
    """Puts a state together again.

    Args:
        read: Returns the array at a path.
        wanted: Whether the value at a path is part of what is asked for; None: everything is.
    """

    def __init__(self, read: Callable[[str], Any], wanted: Callable[[str], bool] | None = None) -> None:
        self._read = read
        self._wanted = wanted

    def decode(self, document: Any, place: Place = ()) -> Any:
        """Return the value of a document; within mappings only what is wanted.

        Raises:
            One of `UNREADABLE`, or CheckpointError: no `Encoder` wrote it.
        """
        if len(place) > MAX_DEPTH:
            raise ValueError(f"nested over {MAX_DEPTH} deep")
        if isinstance(document, list):
            return [self.decode(item, (*place, index)) for index, item in enumerate(document)]
        if not isinstance(document, dict):
            return document
        tag = next(iter(document), "")
        if not tag.startswith("$"):
            return self._mapping(list(document.items()), place)
        content = document[tag]
        match tag:
            case "$array":
                return self._read(content)
            case "$tuple":
                return tuple(self.decode(content, place))
            case "$dict":
                return self._mapping([(self.decode(key), item) for key, item in content], place)
            case "$float":
                return struct.unpack(">d", bytes.fromhex(content))[0]
            case "$int":
                return int(content, 16)
        raise CheckpointError(
            f"state {path_of(place)!r} is written as {tag!r}, which this version cannot read"
        )

    def _mapping(self, items: list[tuple[Key, Any]], place: Place) -> dict[Key, Any]:
        if self._wanted is None:
            return {key: self.decode(item, (*place, key)) for key, item in items}
        wanted = self._wanted
        return {
            key: self.decode(item, (*place, key))
            for key, item in items
            if any(wanted(path) for path in _paths_within(item, (*place, key)))
        }


def path_of(place: Place) -> str:
    """Return a place in the state as a human path; dots in keys, as in a model's, part it too."""
    return "/".join(_segments(place))


def _segments(place: Place) -> list[str]:
    return [_escape(part) for key in place for part in str(key).split(".")]


@functools.lru_cache(2**16)
def _escape(part: str) -> str:
    """Return a name that every file system and Zarr take, different for different parts."""
    name = quote(part, safe="", errors="surrogatepass").replace("~", "%7E") or "%"
    if name.startswith("__"):  # reserved by Zarr
        name = f"%5F{name[1:]}"
    if len(name) > _SEGMENT_LENGTH:
        name = f"{name[: _SEGMENT_LENGTH - 20]}~{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return name


def _scalar(value: Any, place: Place) -> Any:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value) if abs(value) <= _EXACT_INT else {"$int": hex(value)}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
    given = f"{type(value).__module__}.{type(value).__qualname__}"
    raise ArgumentError(
        f"state {path_of(place)!r} is a {given}; allowed are arrays, None, bool, int, float, str, "
        "and lists, tuples and mappings of them"
    )


def _paths_within(document: Any, place: Place) -> list[str]:
    """Return the paths of all values in a document, or its own where it is a value or empty."""
    tag = next(iter(document), "") if isinstance(document, dict) else ""
    items: Iterable[tuple[Key, Any]] = ()
    if tag == "$array":
        return [str(document[tag])]
    if tag == "$dict":
        items = ((Decoder(str).decode(key), item) for key, item in document[tag])
    elif tag == "$tuple" or isinstance(document, list):
        items = enumerate(document[tag] if tag else document)
    elif isinstance(document, dict) and not tag.startswith("$"):
        items = document.items()
    within = [path for key, item in items for path in _paths_within(item, (*place, key))]
    return within or [path_of(place)]


class _Paths:
    """Hands out paths so that no two arrays share one, and none lies inside another.

    Paths are compared without case, as some file systems do.
    """

    def __init__(self) -> None:
        self._arrays: set[str] = set()
        self._groups: dict[str, str] = {}
        self._prefixes: dict[tuple[str, ...], str] = {}

    def claim(self, place: Place) -> str:
        *parents, last = _segments(place) or ["%"]
        prefix = self._prefix(tuple(parents))
        path = self._free(f"{prefix}{last}", lambda p: p.casefold() not in self._groups)
        self._arrays.add(path.casefold())
        return path

    def _prefix(self, parents: tuple[str, ...]) -> str:
        """Return the path of a group, with a slash behind it."""
        if not parents:
            return ""
        if parents not in self._prefixes:
            path = f"{self._prefix(parents[:-1])}{parents[-1]}"
            path = self._free(path, lambda p: self._groups.get(p.casefold(), p) == p)
            self._groups[path.casefold()] = path
            self._prefixes[parents] = f"{path}/"
        return self._prefixes[parents]

    def _free(self, path: str, fits: Callable[[str], bool]) -> str:
        while path.casefold() in self._arrays or not fits(path):
            path += "~"
        return path
