"""Checks of shapes, and sequences packed into rows: from transformers' ``seq_idx`` to bounds in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor


class Packed(NamedTuple):
    """Sequences in a batch of rows that are laid end to end.

    Args:
        bounds: Where each begins, and the end of the last (n+1,).
        last: Which of them is the last in each row (B,).
    """

    bounds: Tensor
    last: Tensor


def fits(tensor: Tensor | None, *shape: int) -> bool:
    """Whether a tensor, where it is given, has that shape; kernels trust shapes, so callers ask first."""
    return tensor is None or tensor.shape == shape


def sequences(seq_idx: Tensor, steps: Tensor) -> Packed | None:
    """Read which steps belong together.

    Args:
        seq_idx: A number for each step (B, L), that of its sequence; a new one begins where it changes.
        steps: What is packed (B, L, …).

    Returns:
        The sequences; None where `seq_idx` has another shape, is empty or holds a negative number, by which
        causal-conv1d marks padding.
    """
    if seq_idx.shape != steps.shape[:2] or not seq_idx.numel() or int(seq_idx.min()) < 0:
        return None
    begins = torch.ones_like(seq_idx, dtype=torch.bool)
    begins[:, 1:] = seq_idx[:, 1:] != seq_idx[:, :-1]
    starts = begins.flatten().nonzero().flatten()
    return Packed(torch.cat([starts, starts.new_tensor([seq_idx.numel()])]), begins.sum(1).cumsum(0) - 1)


def one_row(steps: Tensor) -> Tensor:
    """Lay the rows of a batch (B, L, …) end to end (1, B L, …)."""
    return steps.reshape(1, -1, *steps.shape[2:])
