"""The one task that every trainer is given: a small byte model with dropout, over rows that draw."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import attrs
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

BATCH_SIZE, SEQ_LEN, ACCUMULATE = 4, 16, 2
LEARNING_RATE, WARM_UP, CLIP_NORM, EMA_DECAY, DROPOUT = 1e-2, 2, 1.0, 0.9, 0.1
MASK_BYTE = 0


@attrs.frozen(kw_only=True)
class Job:
    """One run of one trainer, in a process of its own.

    Args:
        out: Folder of the run.
        steps: Optimizer steps of the whole run, each of `ACCUMULATE` micro-batches.
        checkpoint_every: Steps between checkpoints.
        workers: Processes that make batches.
        draws: Whether rows draw random numbers from the global generators.
        epoch_batches: Micro-batches of an epoch.
        row_seconds: How long a row takes to make, beside its own work.
        variant: Which way of using the trainer.
        resume: Whether to go on from the newest checkpoint in `out`.
        kill_at: The micro-batch, from 1, in whose forward pass the process is killed; 0: none.
    """

    out: str
    steps: int = 12
    checkpoint_every: int = 3
    workers: int = 0
    draws: bool = True
    epoch_batches: int = 10
    row_seconds: float = 0.0
    variant: str = ""
    resume: bool = False
    kill_at: int = 0

    @property
    def journal(self) -> Path:
        """Where this process writes down what it trains on; a resumed one beside the killed one's."""
        return Path(self.out) / ("resumed.jsonl" if self.resume else "first.jsonl")

    @property
    def log(self) -> Path:
        """Where what the process says goes."""
        return self.journal.with_suffix(".log")

    def environment(self) -> dict[str, str]:
        """Return the variables by which the model of this task knows the journal and when to die."""
        return {
            "RESUME_JOURNAL": str(self.journal),
            "RESUME_KILL_AT": str(self.kill_at),
        }


class Batch(NamedTuple):
    """What Helix trains on: bytes, and those that follow them, both (B, L) int64."""

    inputs: Tensor
    targets: Tensor


class Rows(torch.utils.data.Dataset):
    """Rows of `SEQ_LEN` + 1 bytes: a random crop, some bytes masked, one replaced.

    torch, NumPy and `random` draw one of these each, from their global generators, as most datasets do.
    """

    def __init__(self, *, draws: bool, epoch_batches: int, row_seconds: float = 0.0) -> None:
        self.draws = draws
        self.n_rows = epoch_batches * BATCH_SIZE
        self.row_seconds = row_seconds
        self._text = np.random.default_rng(0).integers(97, 123, self.n_rows + 64, dtype=np.int64)

    def __len__(self) -> int:
        return self.n_rows

    def __getitem__(self, index: int) -> Tensor:
        count_row()
        if self.row_seconds:
            time.sleep(self.row_seconds)
        if not self.draws:
            return torch.from_numpy(self._text[index : index + SEQ_LEN + 1].copy())
        start = index + int(torch.randint(32, ()))
        row = self._text[start : start + SEQ_LEN + 1].copy()
        row[np.random.random(len(row)) < 0.1] = MASK_BYTE
        row[random.randrange(len(row))] = random.randrange(256)
        return torch.from_numpy(row)


class Model(nn.Module):
    """A byte language model: embedding, GRU, dropout, projection. Writes down what it is trained on."""

    def __init__(self, d_model: int = 16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, d_model)
        self.mixer = nn.GRU(d_model, d_model, batch_first=True)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(d_model, 256)
        self._seen = 0

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits (B, L, 256) of the bytes that follow ``inputs``, (B, L)."""
        if self.training:
            self._seen += 1
            write_down(batch=hashlib.blake2b(inputs.numpy().tobytes(), digest_size=8).hexdigest())
            if self._seen == int(os.environ["RESUME_KILL_AT"]):
                os.kill(os.getpid(), signal.SIGKILL)
        return self.head(self.dropout(self.mixer(self.embedding(inputs))[0]))


def loss_of(model: nn.Module, rows: Tensor) -> Tensor:
    """Return the loss of rows (B, L + 1), and write it down: for trainers whose user computes it."""
    loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
    write_down(loss=loss.item().hex())
    return loss


def write_down(**values: str) -> None:
    """Add a line to the journal, with the time and how many rows were made so far."""
    path = Path(os.environ["RESUME_JOURNAL"])
    rows = path.with_suffix(".rows")
    made = rows.stat().st_size if rows.exists() else 0
    with path.open("a") as file:
        file.write(json.dumps({**values, "rows": made, "time": time.time()}) + "\n")


def count_row() -> None:
    """Count a row made, in whatever process: a byte each in a file."""
    with Path(os.environ["RESUME_JOURNAL"]).with_suffix(".rows").open("ab") as file:
        file.write(b".")
