"""What layers ask of each sequence alike, whether it is a row of a batch or packed into one with others."""

from __future__ import annotations

import torch
from torch import Tensor


class Sequences:
    """n sequences: the rows of a batch (B, L, ...), or end to end in one row (1, T, ...).

    Args:
        cu_seqlens: Bounds (n + 1,) of packed sequences, some of which may be empty; None for rows.
    """

    def __init__(self, cu_seqlens: Tensor | None) -> None:
        self._bounds = None if cu_seqlens is None else cu_seqlens.long()

    def first(self, values: Tensor) -> Tensor:
        """Return the values (n, ...) at each sequence's first token, zero for an empty one."""
        if self._bounds is None:
            return values[:, :1].sum(1)
        padded = torch.cat([values[0], values.new_zeros(1, *values.shape[2:])])
        return _where_any(self._bounds, padded[self._bounds[:-1]], padded[-1:])

    def last(self, values: Tensor, before: Tensor) -> Tensor:
        """Return the values (n, ...) at each sequence's last token, `before` (n, ...) for an empty one."""
        if self._bounds is None:
            return torch.cat([before.unsqueeze(1), values], dim=1)[:, -1]
        padded = torch.cat([values.new_zeros(1, *values.shape[2:]), values[0]])
        return _where_any(self._bounds, padded[self._bounds[1:]], before)

    def next(self, values: Tensor) -> Tensor:
        """Return the value at the next token in place of each, zero at a sequence's last."""
        shifted = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
        if self._bounds is None:
            return shifted
        is_bound = torch.zeros(values.shape[1] + 1, dtype=torch.bool, device=values.device)
        is_last = is_bound.index_fill(0, self._bounds, value=True)[1:]
        return shifted.masked_fill(is_last.view(-1, *[1] * (values.dim() - 2)), 0)

    def running_sums(self, values: Tensor, before: Tensor) -> Tensor:
        """Return `before` (n, ...) plus the sum of a sequence's values up to and with each token."""
        sums = values.cumsum(1)
        if self._bounds is None:
            return sums + before.unsqueeze(1)
        tokens = torch.arange(values.shape[1], device=values.device)
        rows = torch.bucketize(tokens, self._bounds, right=True) - 1
        earlier = torch.cat([torch.zeros_like(before[:1]), sums[0]])[self._bounds[:-1]]
        return sums + (before - earlier)[rows]


def _where_any(bounds: Tensor, values: Tensor, empty: Tensor) -> Tensor:
    """Choose, for each sequence, between a value (n, ...) and the one for a sequence without tokens."""
    has_tokens = (bounds.diff() > 0).view(-1, *[1] * (values.dim() - 1))
    return torch.where(has_tokens, values, empty)
