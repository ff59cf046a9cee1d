"""The dataset `text-bytes`: next-byte prediction over any files."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from helix_data.baselines import compressed_bits_per_byte
from helix_data.config import check_sizes
from helix_data.sources import open_corpus, origin_of
from helix_data.windows import Windows, check_length
from helix_kernel.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.config import Source

Split = Literal["train", "held-out"]


class Batch(NamedTuple):
    """Windows of text and, at each place, the byte that comes next.

    Attributes:
        inputs: (B, L) int64, values 0 to 255.
        targets: (B, L) int64: ``targets[:, t]`` follows ``inputs[:, t]`` in the text.
    """

    inputs: torch.Tensor
    targets: torch.Tensor


class TextBytes:
    """A corpus of bytes whose every training batch is a pure function of (seed, step, rank).

    The last `validation_fraction` of the bytes is held out. The rest is cut into windows of `seq_len`,
    visited in the order of `helix_data.windows.Windows`.

    Args:
        source: A corpus that Python carries, see `helix_data.sources.open_source`.
        paths: Files, folders and globs, see `helix_data.sources.open_paths`. Exactly one of
            `source` and `paths` is given.
        seq_len: Bytes in a window.
        batch_size: Windows in a batch, on each rank.
        validation_fraction: Share of the corpus that is held out, cut from its end; 0 to below 1.

    Raises:
        ArgumentError: An argument is out of range, or not exactly one of `source` and `paths` is given.
        DataError: The corpus is missing, empty, unreadable or too short.
    """

    vocab_size = 256
    draws = False

    def __init__(
        self,
        *,
        source: Source | None = None,
        paths: Sequence[str] = (),
        seq_len: int = 256,
        batch_size: int = 16,
        validation_fraction: float = 0.1,
    ) -> None:
        check_sizes(seq_len=seq_len, batch_size=batch_size, validation_fraction=validation_fraction)
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._origin = origin_of(source, paths)
        self._stream = open_corpus(source, paths)
        self.n_held_out = int(len(self._stream) * validation_fraction)
        self.n_train = len(self._stream) - self.n_held_out
        check_length(
            self._origin,
            n_train=self.n_train,
            n_held_out=self.n_held_out,
            seq_len=seq_len,
            validation_fraction=validation_fraction,
            unit="byte",
        )
        self._windows = Windows(self.n_train, seq_len=seq_len, batch_size=batch_size)

    @property
    def windows_per_epoch(self) -> int:
        """Windows of `seq_len` inputs and one more target that an epoch visits."""
        return self._windows.per_epoch

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the exact bytes of the whole corpus, in hexadecimal; reads them all once."""
        return self._stream.sha256()

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        return (
            f"text-bytes {self._origin}: {len(self._stream):,} bytes, {self.n_train:,} to train on and the "
            f"last {self.n_held_out:,} held out, sha256 {self.fingerprint}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's share of the training batch of a step.

        Args:
            seed: Decides the order of the windows, 0 to 2**64 - 1.
            step: Number of the batch from 0. With gradient accumulation, count the micro-batches.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch of ``world_size · batch_size`` windows.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file has gone or changed its size.
        """
        starts = self._windows.of_batch(seed=seed, step=step, rank=rank, world_size=world_size)
        windows = self._stream.gather(starts, self.seq_len + 1)
        return Batch(
            torch.from_numpy(windows[:, :-1].astype(np.int64)),
            torch.from_numpy(windows[:, 1:].astype(np.int64)),
        )

    def window_starts(self, first: int, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return where windows of the endless shuffled sequence begin in the corpus.

        Args:
            first: Number of the first window wanted, counted through all epochs.
            count: How many.
            seed: Decides the order, 0 to 2**64 - 1.

        Returns:
            (count,) int64, offsets in bytes.
        """
        return self._windows.starts(first, count, seed=seed)

    def held_out(self) -> Bytes:
        """Return the held-out bytes, (n_held_out,) uint8, read-only: a copy if several files share them."""
        return self._stream.read(self.n_train, len(self._stream))

    def read(self, split: Split) -> bytes:
        """Return all bytes of a split, copied into memory: what a compressor is given.

        Args:
            split: ``"train"`` or ``"held-out"``.

        Raises:
            ArgumentError: There is no such split.
        """
        spans = {"train": (0, self.n_train), "held-out": (self.n_train, len(self._stream))}
        if split not in spans:
            raise ArgumentError(
                f"split is {split!r}, allowed is one of {tuple(spans)}.{did_you_mean(split, spans)}"
            )
        return b"".join(piece.tobytes() for piece in self._stream.pieces(*spans[split]))

    def compressed_bits_per_byte(self) -> dict[str, float]:
        """Return what general compressors, primed with the training part, spend on a held-out byte.

        Reads the whole corpus into memory; see `helix_data.baselines.compressed_bits_per_byte`.
        """
        return compressed_bits_per_byte(self.read("train"), self.read("held-out"))
