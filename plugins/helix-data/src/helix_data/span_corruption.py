"""The dataset `span-corruption`: bytes with spans blanked out, to be filled in where they stand."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from helix_data.batches import first_of_batch
from helix_data.shuffle import philox_words
from helix_data.text_bytes import TextBytes
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.config import Source

MASK_ID = 256
"""The id that stands in the inputs for a corrupted byte."""

# Keep the words that place spans apart from each other's and from those that order the windows.
_TRAINING_STREAM = 1 << 62
_HELD_OUT_STREAM = 3 << 62


class CorruptedBatch(NamedTuple):
    """Windows of text with spans blanked out.

    Attributes:
        inputs: (B, L) int64: bytes 0 to 255, and 256 in place of the corrupted ones.
        targets: (B, L) int64: the bytes as they were, 0 to 255.
        mask: (B, L) bool: True where a byte is corrupted, which is where the targets count.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor


class SpanCorruption:
    """A corpus of bytes of which spans are blanked out in each window.

    The objective is that of Raffel et al. 2020 (T5, arXiv:1910.10683, section 3.1.4), for a model that
    fills spans in where they stand: every corrupted byte is replaced by one mask id, so that inputs and
    targets have the same length, where T5 replaces a whole span by one sentinel and writes the spans out
    one after the other. As there, the number of corrupted bytes of a window and of their spans are fixed
    by the rate and the mean length; each placement of that many spans that do not touch is equally likely.

    Windows are those of `helix_data.text_bytes.TextBytes` with the same options, and like its batches
    these are a pure function of (seed, step, rank).

    Args:
        source: A corpus that Python carries, see `helix_data.sources.open_source`.
        paths: Files, folders and globs, see `helix_data.sources.open_paths`. Exactly one of
            `source` and `paths` is given.
        seq_len: Bytes in a window, at least 2.
        batch_size: Windows in a batch, on each rank.
        validation_fraction: Share of the corpus that is held out, cut from its end; 0 to below 1.
        corruption_rate: Share of a window's bytes that are corrupted, above 0 and below 1; at least one
            byte is, and one is not.
        mean_span_length: Bytes in a corrupted span on average, at least 1.

    Raises:
        ArgumentError: An argument is out of range, or not exactly one of `source` and `paths` is given.
        DataError: The corpus is missing, empty, unreadable or too short.
    """

    vocab_size = MASK_ID + 1
    draws = False

    def __init__(
        self,
        *,
        source: Source | None = None,
        paths: Sequence[str] = (),
        seq_len: int = 256,
        batch_size: int = 16,
        validation_fraction: float = 0.1,
        corruption_rate: float = 0.15,
        mean_span_length: float = 3.0,
    ) -> None:
        if seq_len < 2:
            raise ArgumentError(
                f"seq_len is {seq_len!r}, allowed is >= 2: one byte to see and one to fill in"
            )
        if not 0 < corruption_rate < 1:
            raise ArgumentError(f"corruption_rate is {corruption_rate!r}, allowed is > 0 and < 1")
        if not mean_span_length >= 1:
            raise ArgumentError(f"mean_span_length is {mean_span_length!r}, allowed is >= 1")
        self._text = TextBytes(
            source=source,
            paths=paths,
            seq_len=seq_len,
            batch_size=batch_size,
            validation_fraction=validation_fraction,
        )
        self.seq_len = seq_len
        self.batch_size = batch_size
        self.corruption_rate = corruption_rate
        self.mean_span_length = mean_span_length

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the exact bytes of the whole corpus, in hexadecimal."""
        return self._text.fingerprint

    def describe(self) -> str:
        """Return one line for people: what is corrupted, origin, sizes and fingerprint."""
        return (
            f"span-corruption of {self.corruption_rate:.0%} in spans of {self.mean_span_length:g} bytes; "
            f"{self._text.describe()}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> CorruptedBatch:
        """Return a rank's share of the training batch of a step.

        Args:
            seed: Decides the order of the windows and where their spans are, 0 to 2**64 - 1.
            step: Number of the batch from 0. With gradient accumulation, count the micro-batches.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch of ``world_size · batch_size`` windows.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file has gone or changed its size.
        """
        windows = self._text.batch(seed=seed, step=step, rank=rank, world_size=world_size).inputs
        first = first_of_batch(step=step, rank=rank, world_size=world_size, batch_size=self.batch_size)
        return self._corrupted(windows, seed=seed, stream=_TRAINING_STREAM + first)

    def held_out(self) -> Bytes:
        """Return the held-out bytes, (n_held_out,) uint8, read-only."""
        return self._text.held_out()

    def evaluation_batches(self) -> Iterator[CorruptedBatch]:
        """Yield the held-out bytes in windows that do not overlap, corrupted the same way every time.

        The last window has the bytes that are left, if there are two.
        """
        held_out = self.held_out()
        n_windows, rest = divmod(len(held_out), self.seq_len)
        for first in range(0, n_windows, self.batch_size):
            last = min(first + self.batch_size, n_windows)
            yield self._held_out_batch(held_out[first * self.seq_len : last * self.seq_len], first, last)
        if rest > 1:
            yield self._held_out_batch(held_out[-rest:], n_windows, n_windows + 1)

    def _held_out_batch(self, data: Bytes, first: int, last: int) -> CorruptedBatch:
        windows = torch.from_numpy(data.reshape(last - first, -1).astype(np.int64))
        return self._corrupted(windows, seed=0, stream=_HELD_OUT_STREAM + first)

    def _corrupted(self, windows: torch.Tensor, *, seed: int, stream: int) -> CorruptedBatch:
        """Blank out spans of windows (B, L); row r's are those of the stream ``stream + r``."""
        n_rows, length = windows.shape
        rows = [self._spans(length, philox_words(seed, stream + row, length)) for row in range(n_rows)]
        mask = torch.from_numpy(np.stack(rows))
        return CorruptedBatch(windows.masked_fill(mask, MASK_ID), windows, mask)

    def _spans(self, length: int, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which bytes of a window are corrupted, (length,), decided by as many random words."""
        n_corrupted = min(max(round(length * self.corruption_rate), 1), length - 1)
        n_kept = length - n_corrupted
        n_spans = min(max(round(n_corrupted / self.mean_span_length), 1), n_kept + 1)
        spans = _parts(n_corrupted, n_spans, words[: n_corrupted - 1])
        # Before the first span and after the last there may be nothing: two bytes lent, and taken back.
        gaps = _parts(n_kept + 2, n_spans + 1, words[n_corrupted - 1 :])
        gaps[[0, -1]] -= 1
        lengths = np.stack([gaps, np.append(spans, 0)], axis=1).ravel()
        return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


def _parts(total: int, n_parts: int, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return one of the ways to write `total` as a sum of parts of at least 1, all equally likely.

    Args:
        total: At least `n_parts`.
        n_parts: How many parts, at least 1.
        words: (total - 1,) random words: the least of them are where the parts end.
    """
    ends = np.sort(np.argsort(words, kind="stable")[: n_parts - 1]) + 1
    return np.diff(ends, prepend=0, append=total)
