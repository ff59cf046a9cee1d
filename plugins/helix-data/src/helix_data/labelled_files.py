"""The dataset `labelled-files`: whole files, each of the class whose folder it lies in."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from helix_data.batches import check_seed, first_of_batch
from helix_data.config import check_sizes
from helix_data.shuffle import Shuffle
from helix_data.sources import files_of_classes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from helix_data.byte_stream import FileSegment

# Keeps the shuffles that hold files out apart from those that order epochs.
_HELD_OUT_STREAM = 1 << 63


class LabelledBatch(NamedTuple):
    """The beginnings of files, and their classes.

    Attributes:
        inputs: (B, L) int64: bytes 0 to 255, and 0 after a file's end.
        targets: (B,) int64: the number of each file's class.
        input_mask: (B, L) bool: True where a byte is the file's own.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    input_mask: torch.Tensor


class _Example(NamedTuple):
    file: FileSegment
    label: int


class LabelledFiles:
    """Files in a folder for each class, whose every training batch is a pure function of (seed, step, rank).

    Classes are numbered in the order of their folders' names; all files below a folder are of its class,
    but hidden and empty ones. Of each class a share is held out, the same in every run. An epoch visits
    every other file once in an order of its own.

    Args:
        path: The folder that holds the classes' folders, at least two.
        seq_len: Bytes of a file that are read, from its beginning.
        batch_size: Files in a batch, on each rank.
        validation_fraction: Share of each class's files that is held out, rounded down; 0 to below 1.

    Attributes:
        classes: The folders' names, in the order of their numbers.

    Raises:
        ArgumentError: An argument is out of range.
        DataError: The folder is missing or unreadable, has fewer than two classes, or one without files.
    """

    vocab_size = 256
    draws = False
    # Targets are no text, so that there are no bits of a byte.
    tokens_per_byte = None

    def __init__(
        self, *, path: str, seq_len: int = 1024, batch_size: int = 16, validation_fraction: float = 0.1
    ) -> None:
        check_sizes(seq_len=seq_len, batch_size=batch_size, validation_fraction=validation_fraction)
        self.seq_len = seq_len
        self.batch_size = batch_size
        self._path = path
        found = files_of_classes(path)
        self.classes = tuple(found)
        self._train: list[_Example] = []
        self._held_out: list[_Example] = []
        for label, files in enumerate(found.values()):
            order = Shuffle(len(files), seed=0, stream=_HELD_OUT_STREAM + label)(np.arange(len(files)))
            n_held_out = int(len(files) * validation_fraction)
            for place, index in enumerate(order.tolist()):
                part = self._held_out if place < n_held_out else self._train
                part.append(_Example(files[index], label))

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of every file and the name of its class, in hexadecimal; reads them all once."""
        digest = hashlib.sha256()
        for file, label in sorted((*self._train, *self._held_out), key=lambda example: example.file.path):
            digest.update(f"{self.classes[label]} {file.size} ".encode())
            digest.update(file.load().data)
        return digest.hexdigest()

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        return (
            f"labelled-files path={self._path!r}: {self.n_classes} classes, {len(self._train):,} files to "
            f"train on and {len(self._held_out):,} held out, sha256 {self.fingerprint}"
        )

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> LabelledBatch:
        """Return a rank's share of the training batch of a step.

        Args:
            seed: Decides the order of the files, 0 to 2**64 - 1.
            step: Number of the batch from 0. With gradient accumulation, count the micro-batches.
            rank: Which of the ranks, 0 to `world_size` - 1.
            world_size: Ranks that share a global batch of ``world_size · batch_size`` files.

        Returns:
            New tensors on the CPU.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file has gone or changed its size.
        """
        check_seed(seed)
        first = first_of_batch(step=step, rank=rank, world_size=world_size, batch_size=self.batch_size)
        return self._read([self._example(seed, number) for number in range(first, first + self.batch_size)])

    def evaluation_batches(self) -> Iterator[LabelledBatch]:
        """Yield the held-out files, each once, in the same batches every time."""
        for first in range(0, len(self._held_out), self.batch_size):
            yield self._read(self._held_out[first : first + self.batch_size])

    def _example(self, seed: int, number: int) -> _Example:
        epoch, place = divmod(number, len(self._train))
        return self._train[int(_order(len(self._train), seed, epoch)(np.array([place]))[0])]

    def _read(self, examples: Sequence[_Example]) -> LabelledBatch:
        inputs = np.zeros((len(examples), self.seq_len), dtype=np.int64)
        mask = np.zeros(inputs.shape, dtype=np.bool_)
        for row, (file, _) in enumerate(examples):
            data = file.load()[: self.seq_len]
            inputs[row, : len(data)] = data
            mask[row, : len(data)] = True
        targets = torch.tensor([example.label for example in examples])
        return LabelledBatch(torch.from_numpy(inputs), targets, torch.from_numpy(mask))


@lru_cache(maxsize=16)
def _order(n_files: int, seed: int, epoch: int) -> Shuffle:
    return Shuffle(n_files, seed=seed, stream=epoch)
