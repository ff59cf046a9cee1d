"""Writes WAV files: integers of 8 to 32 bits, and floating numbers, the same bytes at every time.

libsndfile puts the time of day into files of floating numbers.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_INTEGER, _FLOATING = 1, 3
_MOST_BYTES = 0xFFFFFFFF - 64


def write(samples: NDArray[Any], rate: int, bits: int | None) -> bytes:
    """Return a WAV file.

    Args:
        samples: (T, C) float32 or float64.
        rate: In Hz.
        bits: 8, 16, 24 or 32 for integers, to which samples are rounded; None for floating numbers.

    Raises:
        InputError: They take more bytes than such a file can say.
    """
    data = _floating(samples) if bits is None else _integer(integers(samples, bits), bits)
    n_channels, width = samples.shape[1], (samples.dtype.itemsize if bits is None else bits // 8)
    if len(data) > _MOST_BYTES or n_channels * width > 0xFFFF:
        raise InputError(
            f"a WAV file cannot hold {len(data):,} bytes of {n_channels} channels, allowed are "
            f"{_MOST_BYTES:,} bytes"
        )
    kind = _FLOATING if bits is None else _INTEGER
    each = n_channels * width
    form = struct.pack("<HHIIHH", kind, n_channels, rate, rate * each & 0xFFFFFFFF, each, width * 8)
    if bits is None:
        chunks = _chunk(b"fmt ", form + b"\0\0") + _chunk(b"fact", struct.pack("<I", len(samples)))
    else:
        chunks = _chunk(b"fmt ", form)
    content = b"WAVE" + chunks + _chunk(b"data", data)
    return b"RIFF" + struct.pack("<I", len(content)) + content


def integers(samples: NDArray[Any], bits: int) -> NDArray[np.int32]:
    """Return finite samples as integers in the upper bits of int32, rounded and cut to the range."""
    most = float(1 << (bits - 1))
    rounded = np.clip(np.rint(samples.astype(np.float64) * most), -most, most - 1).astype(np.int32)
    return np.left_shift(rounded, 32 - bits, dtype=np.int32)


def fits(samples: NDArray[Any], bits: int) -> bool:
    """Whether integers of so many bits hold samples without loss."""
    scaled = samples.astype(np.float64) * float(1 << (bits - 1))
    low, high = -float(1 << (bits - 1)), float((1 << (bits - 1)) - 1)
    with np.errstate(invalid="ignore"):
        return bool(((scaled == np.rint(scaled)) & (scaled >= low) & (scaled <= high)).all())


def _floating(samples: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(samples, samples.dtype.newbyteorder("<")).tobytes()


def _integer(upper: NDArray[np.int32], bits: int) -> bytes:
    """Return the upper bits, the lowest byte first; those of 8 bits are unsigned."""
    each = np.ascontiguousarray(upper, "<i4").view(np.uint8).reshape(-1, 4)[:, 4 - bits // 8 :]
    return np.ascontiguousarray(each ^ 0x80 if bits == 8 else each).tobytes()


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
