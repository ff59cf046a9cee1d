"""Datasets as other people write them: they draw, log, fail, hang and die, also in another process."""

from __future__ import annotations

import os
import random
import signal
import time
from typing import TYPE_CHECKING, NamedTuple

import attrs
import numpy as np
import torch

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


class Drawn(NamedTuple):
    """What a batch has drawn from each of the global generators."""

    inputs: torch.Tensor
    targets: np.ndarray
    place: tuple[int, int, int]
    number: float


@attrs.define
class Drawing:
    """Every batch is drawn from the global generators of torch, NumPy and Python."""

    batch_size = 2
    seq_len = 5
    fingerprint = "drawn"

    def batch(self, *, seed, step, rank=0, world_size=1):
        return Drawn(torch.randn(2, 5), np.random.normal(size=3), (seed, step, rank), random.gauss(0, 1))


@attrs.define
class Logging:
    """Says in a file which batches it has made, each of `n_bytes`."""

    log: Path
    n_bytes: int = 8
    draws = False

    def batch(self, *, seed, step):
        with self.log.open("a") as file:
            file.write(f"{step}\n")
        return torch.full((self.n_bytes * (1 + step % 3),), step % 256, dtype=torch.uint8)

    @property
    def made(self):
        return len(self.log.read_text().split()) if self.log.exists() else 0


@attrs.define
class Misbehaving:
    """Does what `deed` says at a step."""

    deed: str
    step: int

    def batch(self, *, seed, step):
        if step == self.step:
            return getattr(self, self.deed)()
        return torch.tensor(step)

    def fail(self):
        raise KeyError("a word that is not in the list")

    def blame_the_data(self):
        raise DataError("corpus.txt: line 7 is no JSON")

    def kill_itself(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def leave(self):
        os._exit(5)

    def hang(self):
        time.sleep(600)

    def return_what_cannot_be_sent(self):
        return lambda: None

    def raise_what_cannot_be_sent(self):
        raise RuntimeError(lambda: None)


class Unsendable:
    """Holds what no other process can have."""

    def __init__(self):
        self.function = lambda: None

    def batch(self, *, seed, step):
        return step


class Decoding:
    """Decodes samples one by one, and counts how often."""

    fingerprint = "decoding"
    batch_size = 2
    seq_len = 4
    n_rows = 6

    def __init__(self, *, scale: int = 1):
        self.scale = scale
        self.n_decoded = 0

    def describe(self):
        return "numbers"

    def rows(self, *, seed, step, rank=0, world_size=1):
        first = seed + (step * world_size + rank) * self.batch_size
        return [(first + row) % self.n_rows for row in range(self.batch_size)]

    def decode(self, row):
        self.n_decoded += 1
        return {"values": np.arange(4) * row * self.scale, "name": f"row {row}"}

    def collate(self, samples):
        return Drawn(
            torch.tensor(np.stack([sample["values"] for sample in samples])), np.zeros(1), (0, 0, 0), 0
        )

    def batch(self, **place):
        return self.collate([self.decode(row) for row in self.rows(**place)])


class Whole:
    """Makes batches, and batches to be measured on, in one piece, and counts them."""

    fingerprint = "whole"

    def __init__(self, *, scale: int = 1):
        self.scale = scale
        self.n_made = 0

    def batch(self, *, seed, step, rank=0, world_size=1):
        self.n_made += 1
        return torch.tensor([seed, step, rank, world_size]) * self.scale

    def evaluation_batches(self):
        for number in range(3):
            self.n_made += 1
            yield torch.full((2,), number)
