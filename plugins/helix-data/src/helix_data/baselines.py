"""How well ordinary compressors do on a held-out text: the marks that a language model must beat."""

from __future__ import annotations

import gzip
import lzma
import zlib
from typing import TYPE_CHECKING

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

# Deflate cannot look back further than this (RFC 1951, section 2).
_DEFLATE_WINDOW = 1 << 15


def compressed_bits_per_byte(train: bytes, held_out: bytes) -> dict[str, float]:
    """Return the bits that compressors primed with the training part spend on a held-out byte.

    A compressor is primed by what it costs to append: the size of train and held-out together, less
    that of train alone. For gzip a preset dictionary, the training part's last 32 KiB, is tried too,
    and the lower figure counts.

    Args:
        train: What the compressor may have seen before.
        held_out: What it is measured on, at least one byte.

    Returns:
        ``gzip`` (level 9) and ``xz`` (preset 9, extreme), in bits per byte. xz takes about a second
        a megabyte and 700 MB of memory, and remembers 64 MiB of the training part.

    Raises:
        ArgumentError: `held_out` is empty.
    """
    if not held_out:
        raise ArgumentError("held_out is empty; hold out a part of the corpus with validation_fraction > 0")
    gzip_size = min(_appended_size(_gzip, train, held_out), _dictionary_size(train, held_out))
    sizes = {"gzip": gzip_size, "xz": _appended_size(_xz, train, held_out)}
    return {name: 8 * size / len(held_out) for name, size in sizes.items()}


def _appended_size(compress: Callable[[bytes], bytes], train: bytes, held_out: bytes) -> int:
    return len(compress(train + held_out)) - len(compress(train))


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=9, mtime=0)


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _dictionary_size(train: bytes, held_out: bytes) -> int:
    """Return the size of `held_out` as raw deflate after a preset dictionary: no header is counted."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zdict=train[-_DEFLATE_WINDOW:])
    return len(compressor.compress(held_out) + compressor.flush())
