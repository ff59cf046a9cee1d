"""Windows of different lengths, copied out of a text into rows of one width."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.shards.stream import ShardStream


class Spans(NamedTuple):
    """Windows of different lengths.

    Attributes:
        starts: (K,) int64, the first byte of each in the text.
        lengths: (K,) int64, how many inputs each has, 1 to seq_len; one more byte is its last target.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def padded(stream: ShardStream, spans: Spans, seq_len: int) -> Bytes:
    """Return the inputs of windows and their last targets, (K, seq_len + 1) uint8, 0 behind each."""
    return _in_rows(stream, stream.gather, spans.starts, spans.lengths + 1, seq_len + 1)


def first_of_documents(stream: ShardStream, spans: Spans, seq_len: int) -> NDArray[np.bool_]:
    """Tell which targets of windows are the first byte of a document, (K, seq_len) bool."""
    return _in_rows(stream, stream.document_starts, spans.starts + 1, spans.lengths, seq_len)


def _in_rows(
    stream: ShardStream,
    read: Callable[[NDArray[np.int64], int], NDArray[Any]],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    width: int,
) -> NDArray[Any]:
    """Read spans, to the full width where the text goes on so far, and blank what is too much."""
    whole = starts + width <= len(stream)
    if whole.all():
        rows = read(starts, width)
    else:
        found = [read(starts[whole], width)]
        rows = np.zeros((len(starts), width), found[0].dtype)
        rows[whole] = found[0]
        for row in np.flatnonzero(~whole).tolist():
            length = int(lengths[row])
            rows[row, :length] = read(starts[row : row + 1], length)[0]
    if (lengths < width).any():
        rows[np.arange(width) >= lengths[:, None]] = 0
    return rows
