"""How an array's bytes are stored: the shards, inner chunks and metadata documents of Zarr v3.

What one Zarr key holds is called a shard here. Most arrays are one shard; those that several ranks
write are a grid of them. A shard is its C-ordered data in one contiguous run, then a tail: up to
4 MiB the CRC-32C of the data, above it the index of the inner chunks. Inner chunks carry no checksum
of their own, so that the run can be mapped into memory; the manifest holds a digest for each. Of a
compressed array each chunk is compressed by itself, and followed by its own CRC-32C.

The format is the Zarr v3 core specification (https://zarr-specs.readthedocs.io, "Zarr core
specification version 3") with the codecs ``bytes``, ``blosc``, ``crc32c`` and ``sharding_indexed``.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import struct
from typing import TYPE_CHECKING, Any

import attrs
import google_crc32c

from helix_kernel.checkpoint.compression import COMPRESSIONS, MOST_BYTES, codecs, most_stored_bytes
from helix_kernel.checkpoint.dtypes import DTYPES, zarr_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

CHUNK_BYTES = 4 * 2**20
"""Shards up to this size are one chunk; larger ones have inner chunks of about this size."""

_CRC32C: dict[str, Any] = {"name": "crc32c"}
_NO_CHUNK = struct.pack("<QQ", 2**64 - 1, 2**64 - 1)  # in an index: it holds nothing but zeros


@attrs.frozen
class Shard:
    """One shard of an array.

    Args:
        key: Its Zarr key below the array, such as ``c/0/1``.
        origin: Where its first element stands in the array.
        shape: How much of the array it holds: less than a full shard at the array's edges.
    """

    key: str
    origin: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def region(self) -> tuple[slice, ...]:
        """The index of its elements in the array."""
        return tuple(slice(low, low + n) for low, n in zip(self.origin, self.shape, strict=True))


@attrs.frozen
class Layout:
    """Shape and type of one stored array, and how it is cut.

    Args:
        shape: The array's shape.
        dtype: Its type, little-endian.
        shard_shape: What one key holds; lengths of at least 1.
        chunk_shape: What one inner chunk holds, or None where shards are not cut.
        compression: How chunks are compressed, one of `COMPRESSIONS`; None: they are not.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    shard_shape: tuple[int, ...]
    chunk_shape: tuple[int, ...] | None
    compression: str | None = None

    @classmethod
    def of(cls, shape: Sequence[int], dtype: np.dtype, piece: Sequence[int] | None = None) -> Layout:
        """Return the layout in which an array is stored.

        Args:
            shape: The array's shape.
            dtype: Its type, one of `DTYPES`.
            piece: Shape of the pieces that several writers hold, all but those at the edges; left
                out, the array is one piece.
        """
        return _layout(tuple(shape), dtype, tuple(shape if piece is None else piece))

    @classmethod
    def from_metadata(cls, text: str) -> Layout:
        """Read an array's ``zarr.json``, as `metadata` writes it.

        Raises:
            ValueError: It is anything else.
        """
        return _parse(text)

    def compressed(self, compression: str | None) -> Layout:
        """Return the same layout of chunks so compressed, unless they are too large; None: of plain ones."""
        fitting = compression if self.chunk_bytes <= MOST_BYTES else None
        return attrs.evolve(self, compression=fitting)

    @functools.cached_property
    def dtype_name(self) -> str:
        """The Zarr name of the type."""
        return str(zarr_name(self.dtype))

    @functools.cached_property
    def nbytes(self) -> int:
        """Size of the array, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @functools.cached_property
    def n_shards(self) -> int:
        """How many shards there are; an empty array has none."""
        return math.prod(-(-n // rows) for n, rows in zip(self.shape, self.shard_shape, strict=True))

    @functools.cached_property
    def shards(self) -> tuple[Shard, ...]:
        """The shards in C order."""
        if not self.n_shards:  # also where another axis says that there are endlessly many
            return ()
        counts = [-(-n // rows) for n, rows in zip(self.shape, self.shard_shape, strict=True)]
        return tuple(self._shard(index) for index in itertools.product(*map(range, counts)))

    @functools.cached_property
    def stored_bytes(self) -> int:
        """Size of every shard on disk: data of a full shard, then the tail. Compressed, the most it has."""
        if self.compression:
            return self.compressed_bytes([]) + self._n_chunks * most_stored_bytes(self.chunk_bytes)
        tail = 4 if self.chunk_shape is None else 16 * self._n_chunks + 4
        return self._n_chunks * self.chunk_bytes + tail

    def compressed_bytes(self, lengths: Sequence[int]) -> int:
        """Return the size of a shard whose chunks were compressed to these sizes."""
        return sum(lengths) + (0 if self.chunk_shape is None else 16 * self._n_chunks + 4)

    @functools.cached_property
    def chunk_bytes(self) -> int:
        """Size of an inner chunk, or of the whole shard where it is not cut."""
        return math.prod(self.chunk_shape or self.shard_shape) * self.dtype.itemsize

    def data_shape(self, shard: Shard) -> tuple[int, ...]:
        """The block that a shard's data is: its elements, with zeros between where it is cut off inside.

        Only a shard at the edge of a grid that parts a later axis has such zeros.
        """
        behind = self._first_wide_axis + 1
        return shard.shape[:behind] + self.shard_shape[behind:]

    def data_bytes(self, shard: Shard) -> int:
        """Size of a shard's data: all that its digests are of."""
        return math.prod(self.data_shape(shard)) * self.dtype.itemsize

    @functools.cached_property
    def chunk_counts(self) -> tuple[int, ...]:
        """How many chunks each shard has that hold elements."""
        return tuple(-(-self.data_bytes(shard) // self.chunk_bytes) for shard in self.shards)

    def tail(self, nbytes: int, data: bytes | memoryview = b"") -> bytes:
        """Return what follows a shard's data: zeros up to the full shard, then CRC or index.

        Args:
            nbytes: Size of the data.
            data: The data; needed only where the shard is not cut.
        """
        full = math.prod(self.shard_shape) * self.dtype.itemsize
        padding = bytes(full - nbytes)
        if self.chunk_shape is None:
            crc = google_crc32c.value(data if isinstance(data, bytes) else bytes(data))
            return padding + struct.pack("<I", google_crc32c.extend(crc, padding) if padding else crc)
        return padding + self._index([self.chunk_bytes] * self._n_chunks)

    def compressed_tail(self, lengths: Sequence[int]) -> bytes:
        """Return what follows a shard's compressed chunks: nothing, or the index."""
        return b"" if self.chunk_shape is None else self._index(lengths)

    @functools.cached_property
    def metadata(self) -> str:
        """The array's ``zarr.json``."""
        return _metadata(self)

    @functools.cached_property
    def quoted_metadata(self) -> str:
        """The array's ``zarr.json`` as a string of JSON."""
        return json.dumps(self.metadata)

    @functools.cached_property
    def _n_chunks(self) -> int:
        """How many chunks a full shard has."""
        return math.prod(self.shard_shape) * self.dtype.itemsize // self.chunk_bytes

    def _index(self, lengths: Sequence[int]) -> bytes:
        """Return where the first chunks lie, that the others hold nothing, and the CRC of that."""
        starts = itertools.accumulate(lengths, initial=0)
        index = b"".join(struct.pack("<QQ", *place) for place in zip(starts, lengths, strict=False))
        index += _NO_CHUNK * (self._n_chunks - len(lengths))
        return index + struct.pack("<I", google_crc32c.value(index))

    @functools.cached_property
    def _first_wide_axis(self) -> int:
        return next((i for i, n in enumerate(self.shard_shape) if n > 1), 0)

    def _shard(self, index: tuple[int, ...]) -> Shard:
        origin = tuple(i * rows for i, rows in zip(index, self.shard_shape, strict=True))
        shape = tuple(
            min(rows, n - low) for rows, n, low in zip(self.shard_shape, self.shape, origin, strict=True)
        )
        return Shard("/".join(map(str, ("c", *index))), origin, shape)


def group_metadata(attributes: dict[str, Any]) -> str:
    """Return the ``zarr.json`` of a group."""
    return to_text({"zarr_format": 3, "node_type": "group", "attributes": attributes})


def to_text(document: dict[str, Any]) -> str:
    """Return the one way in which a checkpoint writes JSON."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False)


@functools.lru_cache(4096)
def _layout(shape: tuple[int, ...], dtype: np.dtype, piece: tuple[int, ...]) -> Layout:
    chunk = _chunk_shape(piece, dtype.itemsize, padding_allowed=piece == shape)
    full = tuple(-(-max(1, n) // rows) * rows for n, rows in zip(piece, chunk, strict=True))
    return Layout(shape, dtype, full, None if chunk == full else chunk)


def _chunk_shape(shape: tuple[int, ...], itemsize: int, *, padding_allowed: bool) -> tuple[int, ...]:
    """Return how inner chunks are cut, such that each is one contiguous run and only the last is padded.

    The first axis that is longer than one may end in padding: no element comes after it. An axis
    behind that, and one of an array that several shards make up, is cut only where it divides well,
    and else stays whole.
    """
    chunk = [max(1, length) for length in shape]  # Zarr has no chunk of length 0
    for axis, length in enumerate(chunk):
        nbytes = math.prod(chunk) * itemsize
        if nbytes <= CHUNK_BYTES:
            break
        most = max(1, CHUNK_BYTES * length // nbytes)
        if padding_allowed:
            chunk[axis] = _balanced_rows(length, most)
        else:
            rows = max(n for n in range(1, most + 1) if length % n == 0)
            if rows * 4 < most:
                break
            chunk[axis] = rows
        padding_allowed = padding_allowed and length == 1
    return tuple(chunk)


def _balanced_rows(length: int, most: int) -> int:
    """Return how many rows a chunk has: between half of `most` and `most`, with the least padding.

    The last chunk is padded to full size, so a naive cut stores up to twice the array's bytes. Of
    rows that pad equally little the most are taken.
    """
    fewest = -(-length // most)
    candidates = (-(-length // count) for count in range(fewest, 2 * fewest + 1))
    return min(candidates, key=lambda rows: -length % rows)


def _metadata(layout: Layout) -> str:
    zero: Any = {"b": False, "c": [0.0, 0.0]}.get(layout.dtype.kind, 0)
    endian = {"configuration": {"endian": "little"}} if layout.dtype.itemsize > 1 else {}
    to_bytes = {"name": "bytes", **endian}
    index_to_bytes = {"name": "bytes", "configuration": {"endian": "little"}}
    compressing = codecs(layout.dtype.itemsize) if layout.compression else []
    pipeline: list[dict[str, Any]] = [to_bytes, *(compressing or [_CRC32C])]
    if layout.chunk_shape is not None:
        cut = {
            "chunk_shape": layout.chunk_shape,
            "codecs": [to_bytes, *compressing],
            "index_codecs": [index_to_bytes, _CRC32C],
            "index_location": "end",
        }
        pipeline = [{"name": "sharding_indexed", "configuration": cut}]
    return to_text(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": layout.shape,
            "data_type": layout.dtype_name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": layout.shard_shape}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": zero,
            "codecs": pipeline,
            "attributes": {},
        }
    )


@functools.lru_cache(4096)
def _parse(text: str) -> Layout:
    try:
        document = json.loads(text)
        pipeline, cut = document["codecs"], None
        if pipeline[0]["name"] == "sharding_indexed":
            within = pipeline[0]["configuration"]
            pipeline, cut = within["codecs"], within["chunk_shape"]
        is_compressed = any(codec["name"] == "blosc" for codec in pipeline)
        layout = Layout(
            _lengths(document["shape"], least=0),
            DTYPES[document["data_type"]],
            _lengths(document["chunk_grid"]["configuration"]["chunk_shape"], least=1),
            None if cut is None else _lengths(cut, least=1),
            COMPRESSIONS[0] if is_compressed else None,
        )
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"no metadata of an array: {error!r}") from error
    ranks = {len(layout.shape), len(layout.shard_shape), len(layout.chunk_shape or layout.shape)}
    if len(ranks) > 1 or layout.metadata != text or not _is_contiguous(layout) or _is_mostly_padding(layout):
        raise ValueError("metadata that this format does not write")
    if is_compressed and layout.chunk_bytes > MOST_BYTES:
        raise ValueError("a chunk that is too large to be compressed")
    return layout


def _lengths(values: list[int], least: int) -> tuple[int, ...]:
    if not all(type(n) is int and least <= n < 2**63 for n in values):
        raise ValueError(f"lengths {values}")
    return tuple(values)


def _is_mostly_padding(layout: Layout) -> bool:
    """Whether a shard is twice as long as its array, which no cut of ours makes it."""
    return any(rows >= 2 * max(1, n) for n, rows in zip(layout.shape, layout.shard_shape, strict=True))


def _is_contiguous(layout: Layout) -> bool:
    """Whether the inner chunks of a shard follow one another as its elements do in C order."""
    if layout.chunk_shape is None:
        return True
    cut = [(n, rows) for n, rows in zip(layout.shard_shape, layout.chunk_shape, strict=True) if n > 1]
    partial = [i for i, (n, rows) in enumerate(cut) if rows < n]
    last = partial[-1] if partial else 0
    return all(n % rows == 0 for n, rows in cut) and all(rows == 1 for _, rows in cut[:last])
