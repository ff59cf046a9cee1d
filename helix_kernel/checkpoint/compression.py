"""Compressed chunks, as Zarr's codecs ``blosc`` and then ``crc32c`` write and read them.

A chunk's bits are sorted by their place in an element, which brings those of exponents together, and
compressed by LZ4, block by block. The checksum is of what is stored, so that damage is found before it is
decompressed.

Sources: the Zarr v3 codecs "blosc" and "crc32c" (https://zarr-specs.readthedocs.io); K. Masui et al., "A
compression scheme for radio data in high performance computing", Astronomy and Computing 12 (2015), for
bit-shuffling; c-blosc's README_CHUNK_FORMAT for the header.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from helix_kernel.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from types import ModuleType

COMPRESSIONS = ("bitshuffle-lz4",)
"""What `check_compression` allows, beside None."""

MOST_BYTES = 2**31 - 17
"""A chunk of more cannot be compressed: Blosc counts in 32 bits."""

MOST_UNFOLDED = 256
"""No compressed chunk becomes so many times its size: LZ4 stays below 255."""

_LEVEL = 5  # 9 makes random weights smaller by 0.01 %, and is slower
_SORTED = 8  # Blosc sorts the bits of a block only if it has a multiple of so many elements
_BLOCK_BYTES = 2**18
_HEADER = struct.Struct(
    "<BBBBIII"
)  # two versions, flags, size of an element, of the data, of a block, of all
_CRC = struct.Struct("<I")


def check_compression(name: str | None) -> None:
    """Refuse what is no compression.

    Raises:
        ArgumentError: It is none.
    """
    if name is not None and name not in COMPRESSIONS:
        raise ArgumentError(
            f"compression is {name!r}; allowed are {', '.join(COMPRESSIONS)}, and None."
            f"{did_you_mean(str(name), COMPRESSIONS)}"
        )


def codecs(itemsize: int) -> list[dict[str, Any]]:
    """Return how Zarr's metadata name what `compress` does to the bytes of a chunk."""
    blosc = {"typesize": itemsize, "cname": "lz4", "clevel": _LEVEL, "shuffle": "bitshuffle", "blocksize": 0}
    return [{"name": "blosc", "configuration": blosc}, {"name": "crc32c"}]


def most_stored_bytes(nbytes: int) -> int:
    """Return the most bytes that `compress` makes of so many: what does not shrink is copied."""
    return nbytes + _HEADER.size + _CRC.size


def compress(data: np.ndarray, itemsize: int) -> bytes:
    """Return a chunk as it is stored; other threads run meanwhile.

    Args:
        data: One-dimensional, of uint8, and of whole elements.
        itemsize: Bytes of an element.
    """
    elements = data.view("c16" if itemsize == 16 else f"u{itemsize}")  # numpy knows no u16
    block = _block_elements(len(data), itemsize)
    frame: bytes = _blosc().compress(elements, b"lz4", _LEVEL, _blosc().BITSHUFFLE, block)
    return frame + _CRC.pack(google_crc32c.value(frame))


def _block_elements(nbytes: int, itemsize: int) -> int:
    """Return the size of blocks, in elements, that leaves next to nothing unsorted; 0: Blosc's own does.

    Blosc takes it for LZ4 as a size in elements, for it compresses each byte of them by itself.
    """
    group = _SORTED * itemsize
    if nbytes % group == 0:
        return 0
    n_blocks = -(-nbytes // _BLOCK_BYTES)
    return nbytes // n_blocks // group * _SORTED


def frame_of(stored: memoryview, nbytes: int) -> bytes:
    """Return what `decompress` takes of a stored chunk, if it is as it was stored; allocates nothing else.

    Args:
        stored: What `compress` returned.
        nbytes: How many bytes of data it must hold.

    Raises:
        ValueError: It was changed, or says to be of another size.
    """
    frame = bytes(stored[: -_CRC.size])
    if len(frame) < _HEADER.size or _CRC.pack(google_crc32c.value(frame)) != stored[-_CRC.size :]:
        raise ValueError("its checksum is another")
    *_, claimed, _, length = _HEADER.unpack_from(frame)
    if (claimed, length) != (nbytes, len(frame)):
        raise ValueError(f"it claims {claimed} bytes of {nbytes}, compressed to {length} of {len(frame)}")
    return frame


def decompress(frame: bytes, out: memoryview) -> None:
    """Fill a buffer with the data of a chunk, of which `frame_of` found that they are so many.

    Raises:
        ValueError: It was made to look like a compressed chunk, and is none.
    """
    try:
        _blosc().decompress(frame, np.frombuffer(out, np.uint8))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"Blosc says: {error}") from error


@functools.cache
def _blosc() -> ModuleType:
    from numcodecs import blosc  # a third of a second, for those who compress

    module: ModuleType = blosc
    return module
