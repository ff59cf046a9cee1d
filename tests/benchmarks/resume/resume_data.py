"""The task's rows as a dataset of Helix: which batch is wanted decides its rows, and nothing else does."""

from __future__ import annotations

import numpy as np
import torch
from resume_task import BATCH_SIZE, SEQ_LEN, Batch, Rows


class Data:
    """Shuffled anew in every epoch, as a DataLoader with ``shuffle=True`` does."""

    vocab_size = 256
    seq_len = SEQ_LEN
    batch_size = BATCH_SIZE
    fingerprint = "rows of the benchmark of resuming"

    def __init__(self, *, draws: bool = True, epoch_batches: int = 10, row_seconds: float = 0.0) -> None:
        self._rows = Rows(draws=draws, epoch_batches=epoch_batches, row_seconds=row_seconds)
        self._epoch_batches = epoch_batches

    def describe(self) -> str:
        """Return what this is, for the log."""
        return f"{len(self._rows)} rows an epoch"

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a micro-batch."""
        epoch, number = divmod(step, self._epoch_batches)
        order = np.random.default_rng([seed, epoch]).permutation(len(self._rows))
        chosen = order[number * BATCH_SIZE : (number + 1) * BATCH_SIZE]
        rows = torch.stack([self._rows[int(index)] for index in chosen])
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous())

    def held_out(self) -> np.ndarray:
        """Return a few bytes to validate on when the run ends."""
        return np.arange(2 * SEQ_LEN, dtype=np.uint8)
