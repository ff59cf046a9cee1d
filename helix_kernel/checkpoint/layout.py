"""Where an array's bytes lie: the chunks, keys and metadata documents of Zarr v3.

Chunks are cut so that each holds one contiguous run of the C-ordered array: leading axes in steps
of one, then one axis in rows, then whole axes. Writing and reading are then plain copies of byte
ranges, and a slice of the first axis touches only the chunks that it needs.

The format is the Zarr v3 core specification (https://zarr-specs.readthedocs.io, "Zarr core
specification version 3") with the codecs ``bytes`` and ``crc32c``.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from helix_kernel.checkpoint.dtypes import DTYPES, zarr_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CHUNK_BYTES = 4 * 2**20
"""Arrays up to this size are one chunk; larger ones have chunks of about this size."""


@attrs.frozen
class Chunk:
    """One chunk: its key below the array, and the run of the array's bytes that it holds.

    Args:
        key: Such as ``c/0/1``.
        start: First byte of the C-ordered array that it holds.
        stop: One past the last.
        padding: Zero bytes after them, where the chunk reaches past the array's edge.
    """

    key: str
    start: int
    stop: int
    padding: int

    @property
    def file_bytes(self) -> int:
        """Size of the chunk on disk: the run, its padding and a CRC-32C of both."""
        return self.stop - self.start + self.padding + 4


@attrs.frozen
class Layout:
    """Shape, dtype and chunks of one stored array."""

    shape: tuple[int, ...]
    dtype: np.dtype
    chunk_shape: tuple[int, ...]

    @classmethod
    def of(cls, array: np.ndarray) -> Layout:
        """Return the layout in which the array is stored."""
        return cls(array.shape, array.dtype, _chunk_shape(array.shape, array.dtype.itemsize))

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Layout:
        """Read an entry of a checkpoint's list of arrays."""
        return cls(tuple(document["shape"]), DTYPES[document["dtype"]], tuple(document["chunks"]))

    def to_json(self) -> dict[str, Any]:
        """Return the entry for a checkpoint's list of arrays."""
        return {"shape": self.shape, "dtype": zarr_name(self.dtype), "chunks": self.chunk_shape}

    @property
    def nbytes(self) -> int:
        """Size of the array, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks in the order of the bytes that they hold; an empty array has none."""
        if 0 in self.shape:
            return
        axis = next((i for i, rows in enumerate(self.chunk_shape) if rows > 1), max(len(self.shape) - 1, 0))
        length, rows = (self.shape[axis], self.chunk_shape[axis]) if self.shape else (1, 1)
        row_bytes = math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize
        whole_axes = (0,) * (len(self.shape) - axis - 1)
        for outer, index in enumerate(np.ndindex(self.shape[:axis])):
            for block, row in enumerate(range(0, length, rows)):
                stop = min(row + rows, length)
                key = ".".join(map(str, ("c", *index, block, *whole_axes))) if self.shape else "c"
                first = (outer * length + row) * row_bytes
                yield Chunk(key, first, first + (stop - row) * row_bytes, (row + rows - stop) * row_bytes)

    def metadata(self) -> bytes:
        """Return the array's ``zarr.json``."""
        zero: Any = {"b": False, "c": [0.0, 0.0]}.get(self.dtype.kind, 0)
        endian = {"configuration": {"endian": "little"}} if self.dtype.itemsize > 1 else {}
        return to_bytes(
            {
                "zarr_format": 3,
                "node_type": "array",
                "shape": self.shape,
                "data_type": zarr_name(self.dtype),
                "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.chunk_shape}},
                # dots instead of the usual slashes save a directory, and its fsync, for each array
                "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
                "fill_value": zero,
                "codecs": [{"name": "bytes", **endian}, {"name": "crc32c"}],
                "attributes": {},
            }
        )


def group_metadata(attributes: dict[str, Any]) -> bytes:
    """Return the ``zarr.json`` of a group."""
    return to_bytes({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def to_bytes(document: dict[str, Any]) -> bytes:
    """Return the one way in which a checkpoint writes JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _chunk_shape(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    chunk = [max(1, length) for length in shape]  # Zarr has no chunk of length 0
    for axis, length in enumerate(chunk):
        if math.prod(chunk) * itemsize <= CHUNK_BYTES:
            break
        row_bytes = math.prod(chunk[axis + 1 :]) * itemsize
        chunk[axis] = _balanced_rows(length, max(1, CHUNK_BYTES // row_bytes))
    return tuple(chunk)


def _balanced_rows(length: int, most: int) -> int:
    """Return how many rows a chunk has: between half of `most` and `most`, with the least padding.

    The last chunk of a row of chunks is padded to full size, so a naive cut stores up to twice the
    array's bytes. Of rows that pad equally little the most are taken.
    """
    fewest = -(-length // most)
    candidates = (-(-length // count) for count in range(fewest, 2 * fewest + 1))
    return min(candidates, key=lambda rows: -length % rows)
