"""Which arrays are worth compressing: some of each is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint.arrays import sample
from helix_kernel.checkpoint.compression import compress

if TYPE_CHECKING:
    import numpy as np

    from helix_kernel.checkpoint.layout import Layout

WORTHWHILE = 0.97
"""An array that is compressed to a larger share than this is stored as it is, and can then be mapped."""

_PARTS, _PART_BYTES = 8, 2**17


def chosen(array: Any, layout: Layout, compression: str | None) -> Layout:
    """Return the layout that an array is to be stored in: compressed, if some of it shrinks enough.

    Args:
        array: An array of any kind that a state may hold.
        layout: Its layout, not compressed.
        compression: One of `COMPRESSIONS`; None: it is stored as it is.
    """
    if compression is None or not is_worthwhile(*trial(array, layout.dtype)):
        return layout
    return layout.compressed(compression)


def trial(array: Any, dtype: np.dtype) -> tuple[int, int]:
    """Return how many bytes of an array were tried, and how many they became.

    Args:
        array: All of it or a part; up to 1 MiB is tried wholly, of more as much, spread over it.
        dtype: The type that it is stored in.
    """
    tried = became = 0
    for part in sample(array, dtype, _PARTS, _PART_BYTES):
        tried += len(part)
        became += len(compress(part, dtype.itemsize))
    return tried, became


def is_worthwhile(tried: int, became: int) -> bool:
    """Whether what `trial` found is reason enough."""
    return became < WORTHWHILE * tried
