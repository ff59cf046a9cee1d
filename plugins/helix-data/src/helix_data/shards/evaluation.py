"""The windows in which a text is measured: each target once, with half a window before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from helix_data.shards.stream import ShardStream


def whole_text(stream: ShardStream) -> Iterator[tuple[int, int]]:
    """Yield where the text begins and ends, if it has a target."""
    if len(stream) > 1:
        yield 0, len(stream)


def documents(stream: ShardStream) -> Iterator[tuple[int, int]]:
    """Yield where each document that has a target begins and ends."""
    for shard in range(len(stream.shards)):
        begin = first = stream.begin_of(shard)
        for end in stream.ends_in(shard).tolist():
            if begin + end - first > 1:
                yield first, begin + end
            first = begin + end


def evaluation_spans(
    texts: Iterable[tuple[int, int]], *, seq_len: int, batch_size: int
) -> Iterator[tuple[Spans, NDArray[np.int64]]]:
    """Yield the windows of texts, in batches.

    They overlap by half, and a window after a text's first scores what the one before has not.

    Args:
        texts: Where each begins and ends.
        seq_len: Most inputs in a window.
        batch_size: Most windows in a batch.

    Yields:
        The windows, and the first target of each that is scored (K,).
    """
    pending: list[tuple[int, int, int]] = []
    for begin, end in texts:
        for window in _windows(begin, end - begin - 1, seq_len):
            pending.append(window)
            if len(pending) == batch_size:
                yield _batch(pending)
                pending = []
    if pending:
        yield _batch(pending)


def _windows(begin: int, n_targets: int, seq_len: int) -> Iterator[tuple[int, int, int]]:
    """Yield start, length and first scored target of each window of a text."""
    length = min(seq_len, n_targets)
    scored = 0
    for start in range(0, n_targets - length, max(1, length // 2)):
        yield begin + start, length, scored - start
        scored = start + length
    last = n_targets - length
    yield begin + last, length, scored - last


def _batch(windows: list[tuple[int, int, int]]) -> tuple[Spans, NDArray[np.int64]]:
    starts, lengths, scored_from = np.array(windows, dtype=np.int64).T
    return Spans(starts, lengths), scored_from
