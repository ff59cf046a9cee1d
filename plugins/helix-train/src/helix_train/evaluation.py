"""Measures a language model on held-out bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@attrs.frozen
class Evaluation:
    """The mean loss over held-out bytes.

    Args:
        loss: Cross-entropy in nats per byte.
        n_bytes: How many bytes were predicted.
    """

    loss: float
    n_bytes: int

    @property
    def bits_per_byte(self) -> float:
        """The loss in bits."""
        return self.loss / math.log(2)


def evaluate(
    model: torch.nn.Module, held_out: NDArray[np.uint8], *, seq_len: int, batch_size: int
) -> Evaluation:
    """Predict every held-out byte but the first once, in overlapping windows.

    Each window after the first scores only its second half, so that a byte is predicted from at
    least ``seq_len // 2`` bytes before it (fewer only at the very beginning).

    Args:
        model: From ids (B, L) int64 to logits (B, L, V).
        held_out: Bytes (n,), uint8, at least 2.
        seq_len: Length of a window.
        batch_size: Windows in one forward pass.

    Raises:
        ArgumentError: A number is out of range, or there is no byte to predict.
    """
    _check(len(held_out), seq_len, batch_size)
    device = next(model.parameters()).device
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for ids, targets, scored in _batches(held_out, seq_len, batch_size):
            logits = model(ids.to(device)).float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten().to(device), reduction="none")
            total += float(losses.cpu().double()[scored.flatten()].sum())
            count += int(scored.sum())
    model.train(was_training)
    return Evaluation(total / count, count)


def _check(n_bytes: int, seq_len: int, batch_size: int) -> None:
    if n_bytes < 2:
        raise ArgumentError(
            f"held_out has {n_bytes} bytes, and 2 are the fewest of which one can be predicted; "
            "let the data hold out more (data.validation_fraction)"
        )
    for name, value in (("seq_len", seq_len), ("batch_size", batch_size)):
        if value < 1:
            raise ArgumentError(f"{name} is {value}, allowed is >= 1")


def _batches(
    data: NDArray[np.uint8], seq_len: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield ids, targets and whether each target is scored, (B, L) each; reads no more than a batch."""
    n_targets = len(data) - 1
    length = min(seq_len, n_targets)
    starts = np.append(np.arange(0, n_targets - length, max(1, length // 2)), n_targets - length)
    # What the window before has scored is not scored again; before the first there is none.
    scored_until = np.append(0, starts[:-1] + length)
    for first in range(0, len(starts), batch_size):
        rows = slice(first, first + batch_size)
        positions = starts[rows, None] + np.arange(length)
        ids, targets = (torch.from_numpy(data[positions + shift].astype(np.int64)) for shift in (0, 1))
        yield ids, targets, torch.from_numpy(positions >= scored_until[rows, None])
