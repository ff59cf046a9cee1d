"""Measures a language model on held-out bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
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
        held_out: Bytes (n,), uint8.
        seq_len: Length of a window.
        batch_size: Windows in one forward pass.
    """
    device = next(model.parameters()).device
    data = torch.from_numpy(held_out.astype("int64"))
    total, count = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for ids, targets, scored in _batches(data, seq_len, batch_size):
            logits = model(ids.to(device)).float()
            losses = F.cross_entropy(logits.flatten(0, 1), targets.to(device).flatten(), reduction="none")
            total += float(losses[scored.to(device).flatten()].double().sum())
            count += int(scored.sum())
    model.train(was_training)
    return Evaluation(total / count, count)


def _batches(
    data: torch.Tensor, seq_len: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    n_targets = len(data) - 1
    length = min(seq_len, n_targets)
    stride = max(1, length // 2)
    starts = list(range(0, n_targets - length + 1, stride))
    if starts[-1] + length < n_targets:
        starts.append(n_targets - length)
    scored_until = 0
    windows = []
    for start in starts:
        positions = torch.arange(start, start + length)
        windows.append((positions, positions >= scored_until))
        scored_until = start + length
    for first in range(0, len(windows), batch_size):
        group = windows[first : first + batch_size]
        index = torch.stack([positions for positions, _ in group])
        yield data[index], data[index + 1], torch.stack([scored for _, scored in group])
