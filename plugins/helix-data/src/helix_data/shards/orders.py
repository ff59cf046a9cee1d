"""The endless shuffled sequences of windows that training visits, each window found by its number."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from helix_data.batches import check_seed
from helix_data.shards.spans import Spans
from helix_data.shuffle import Shuffle
from helix_data.windows import Windows

if TYPE_CHECKING:
    from helix_data.shards.document_windows import DocumentWindows


class TextOrder:
    """Windows of one text, in the order of `helix_data.windows.Windows`.

    Args:
        n_bytes: Of the text, more than `seq_len`.
        seq_len: Inputs in a window.
    """

    def __init__(self, n_bytes: int, *, seq_len: int) -> None:
        self._windows = Windows(n_bytes, seq_len=seq_len, batch_size=1)
        self._seq_len = seq_len

    @property
    def per_epoch(self) -> int:
        """Windows that an epoch visits."""
        return self._windows.per_epoch

    def spans(self, first: int, count: int, *, seed: int) -> Spans:
        """Return windows ``first`` to ``first + count`` of the sequence."""
        starts = self._windows.starts(first, count, seed=seed)
        return Spans(starts, np.full_like(starts, self._seq_len))


class DocumentOrder:
    """Windows that lie each in one document: every epoch visits each once, in an order of its own.

    Args:
        windows: At least one.
    """

    def __init__(self, windows: DocumentWindows) -> None:
        self._windows = windows
        self._epoch = lru_cache(maxsize=4)(self._plan_epoch)

    def __reduce__(self) -> tuple[type[DocumentOrder], tuple[DocumentWindows]]:
        # What is kept of epochs is planned again in another process.
        return DocumentOrder, (self._windows,)

    @property
    def per_epoch(self) -> int:
        """Windows that an epoch visits."""
        return len(self._windows)

    def spans(self, first: int, count: int, *, seed: int) -> Spans:
        """Return windows ``first`` to ``first + count`` of the sequence."""
        check_seed(seed)
        numbers = []
        while count:
            epoch, place = divmod(first, self.per_epoch)
            here = min(count, self.per_epoch - place)
            numbers.append(self._epoch(seed, epoch)(np.arange(place, place + here)))
            first, count = first + here, count - here
        return self._windows(np.concatenate(numbers))

    def _plan_epoch(self, seed: int, epoch: int) -> Shuffle:
        return Shuffle(self.per_epoch, seed=seed, stream=epoch)
