"""The dataset `text-bytes`: next-byte prediction over any files."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import torch

from helix_data.baselines import compressed_bits_per_byte
from helix_data.config import check_origin
from helix_data.shuffle import Shuffle, philox_words
from helix_data.sources import open_paths, open_source
from helix_kernel.errors import ArgumentError, DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from helix_data.byte_stream import Bytes
    from helix_data.config import Source

Split = Literal["train", "held-out"]

# Keeps the words that place an epoch's windows apart from those that shuffle them.
_OFFSET_STREAM = 1 << 63


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

    The last `validation_fraction` of the bytes is held out. The rest is cut into windows of
    `seq_len` that do not overlap; an epoch visits each once, in an order and from a first byte of
    its own (so that windows begin elsewhere in every epoch), and leaves out at most
    2 · `seq_len` bytes at the ends. Window number ``step · world_size · batch_size + rank · batch_size
    + row`` of this endless sequence is computed directly, so resuming at any step costs nothing and
    the order of the data is the same however many ranks share a global batch.

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

    def __init__(
        self,
        *,
        source: Source | None = None,
        paths: Sequence[str] = (),
        seq_len: int = 256,
        batch_size: int = 16,
        validation_fraction: float = 0.1,
    ) -> None:
        check_origin(source, paths)
        _check_at_least("seq_len", seq_len, 1)
        _check_at_least("batch_size", batch_size, 1)
        if not 0 <= validation_fraction < 1:
            raise ArgumentError(f"validation_fraction is {validation_fraction!r}, allowed is >= 0 and < 1")
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._origin = f"source={source!r}" if source else f"paths={list(paths)!r}"
        self._stream = open_source(source) if source else open_paths(paths)
        self.n_held_out = int(len(self._stream) * validation_fraction)
        self.n_train = len(self._stream) - self.n_held_out
        self._check_length(validation_fraction)
        self._epoch = lru_cache(maxsize=4)(self._plan_epoch)

    @property
    def windows_per_epoch(self) -> int:
        """Windows of `seq_len` inputs and one more target that an epoch visits."""
        # One window is given up, so that an epoch may begin at any of seq_len bytes.
        return max(1, (self.n_train - self.seq_len) // self.seq_len)

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
        _check_at_least("step", step, 0)
        _check_at_least("world_size", world_size, 1)
        if not 0 <= rank < world_size:
            raise ArgumentError(f"rank is {rank!r}, allowed is >= 0 and < world_size={world_size}")
        first = (step * world_size + rank) * self.batch_size
        windows = self._stream.gather(self.window_starts(first, self.batch_size, seed=seed), self.seq_len + 1)
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
        if not 0 <= seed < 1 << 64:
            raise ArgumentError(f"seed is {seed!r}, allowed is >= 0 and < 2**64")
        starts = []
        while count:
            epoch, place = divmod(first, self.windows_per_epoch)
            here = min(count, self.windows_per_epoch - place)
            offset, shuffle = self._epoch(seed, epoch)
            starts.append(shuffle(np.arange(place, place + here)) * self.seq_len + offset)
            first, count = first + here, count - here
        return np.concatenate(starts)

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

    def _plan_epoch(self, seed: int, epoch: int) -> tuple[int, Shuffle]:
        """Return the first byte of the epoch's first window, and the order of its windows."""
        slack = self.n_train - 1 - self.windows_per_epoch * self.seq_len
        offset = int(philox_words(seed, _OFFSET_STREAM + epoch, 1)[0]) % (slack + 1)
        return offset, Shuffle(self.windows_per_epoch, seed=seed, stream=epoch)

    def _check_length(self, validation_fraction: float) -> None:
        needed = self.seq_len + 1
        if self.n_train < needed:
            raise DataError(
                f"{self._origin}: too short: {self.n_train} of its {len(self._stream)} bytes are left to "
                f"train on; a window of seq_len={self.seq_len} needs {needed} (its last target is one byte "
                "further); give more text or a smaller seq_len"
            )
        if validation_fraction > 0 and self.n_held_out < 2:
            raise DataError(
                f"{self._origin}: too short: validation_fraction={validation_fraction} of its "
                f"{len(self._stream)} bytes holds out {self.n_held_out}, and 2 are the fewest that can be "
                "predicted; give more text, a larger validation_fraction, or 0 to hold out nothing"
            )


def _check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ArgumentError(f"{name} is {value!r}, allowed is >= {least}")
