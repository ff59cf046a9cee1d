"""Windows that lie each in one document: found by their number, with little kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.spans import Spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_data.shards.stream import ShardStream

# Documents that are counted together.
_GROUP = 64


class DocumentWindows:
    """The windows of every document: `seq_len` inputs each, the last one the inputs that are left.

    A document of n bytes has n - 1 targets, and so ceil((n - 1) / seq_len) windows, which share no input.
    Kept is how many windows each 64 documents have: less than half a byte a document.

    Args:
        stream: The text; the ends of all its documents are read once.
        seq_len: Most inputs in a window.
    """

    def __init__(self, stream: ShardStream, *, seq_len: int) -> None:
        self._stream = stream
        self._seq_len = seq_len
        counts, groups = [], []
        for shard in range(len(stream.shards)):
            windows = self._windows_of(np.diff(stream.ends_in(shard), prepend=0))
            firsts = np.arange(0, len(windows), _GROUP)
            counts.append(np.add.reduceat(windows, firsts))
            groups += [(shard, first) for first in firsts.tolist()]
        # For each group of documents its shard, its first document, and how many windows end with it.
        self._groups = np.array(groups, dtype=np.int64).reshape(-1, 2)
        self._ends = np.cumsum(np.concatenate([np.empty(0, np.int64), *counts]))

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __call__(self, numbers: NDArray[np.int64]) -> Spans:
        """Return where windows lie.

        Args:
            numbers: (K,) int64, each in 0 … len - 1.

        Raises:
            DataError: A file of the shards has gone or changed its size.
        """
        group = np.searchsorted(self._ends, numbers, side="right")
        edges = self._edges(group)
        ends = np.cumsum(self._windows_of(np.diff(edges)), axis=1)
        in_group = numbers - self._ends[group] + ends[:, -1]
        document = (ends <= in_group[:, None]).sum(axis=1)
        rows = np.arange(len(numbers))
        in_document = in_group - np.where(document > 0, ends[rows, document - 1], 0)
        starts = edges[rows, document] + in_document * self._seq_len
        return Spans(starts, np.minimum(self._seq_len, edges[rows, document + 1] - 1 - starts))

    def _edges(self, groups: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where the documents of groups begin and end, (K, 65); what is too much repeats the end."""
        edges = np.empty((len(groups), _GROUP + 1), dtype=np.int64)
        for row, (shard, first) in zip(edges, self._groups[groups].tolist(), strict=True):
            ends = self._stream.ends_in(shard)
            row[0] = ends[first - 1] if first else 0
            here = ends[first : first + _GROUP]
            row[1 : 1 + len(here)] = here
            row[1 + len(here) :] = here[-1]
            row[:] += self._stream.begin_of(shard)
        return edges

    def _windows_of(self, lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-np.maximum(lengths - 1, 0) // self._seq_len)
