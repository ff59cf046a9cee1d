"""A table of vectors with values, and how stable each is: what the tier of stable cores is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize, pad

from helix_topo.host import HostModule

if TYPE_CHECKING:
    from torch import Tensor

_DECAY = 19 / 81
_GROWTH = 1.0


class DenseRows(HostModule):
    """Rows of a key, a value, how much went into them, and their half-life; all of it buffers.

    The half-life S follows FSRS-4.5 (open-spaced-repetition; Ye et al., KDD 2022, on what it is fitted to):
    after a time Δt a row is recalled with R = (1 + 19/81 · Δt / S)^(-1/2), which is 0.9 after Δt = S; and a
    recall makes S to S · (1 + w (e^(1 - R) - 1)), here with w = 1. A row begins with S = 1.

    Args:
        capacity: Rows C.
        d_key: Length of a key.
        d_value: Length of a value.
    """

    keys: Tensor
    values: Tensor
    ids: Tensor
    labels: Tensor
    weights: Tensor
    half_life: Tensor
    recalled_at: Tensor

    def __init__(self, capacity: int, d_key: int, d_value: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(capacity, d_key))
        self.register_buffer("values", torch.zeros(capacity, d_value))
        self.register_buffer("ids", torch.full((capacity,), -1))
        self.register_buffer("labels", torch.full((capacity,), -1))
        self.register_buffer("weights", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("half_life", torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("recalled_at", torch.zeros(capacity, dtype=torch.float64))

    @property
    def n_bytes(self) -> int:
        """What the table takes."""
        return sum(table.nbytes for table in self.buffers())

    def likest(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the rows (Q, k) whose keys are most like queries (Q, d_key), and the cosines.

        Of equal ones the later id comes first; where there are no more rows, -1 and -inf.
        """
        order = self.ids.argsort(descending=True)[: self.n_rows()]
        likeness = normalize(queries.double(), dim=-1) @ normalize(self.keys[order].double(), dim=-1).T
        # Rounded to float32, equal keys have equal scores, in whatever order the products were summed.
        scores, places = likeness.float().sort(dim=-1, descending=True, stable=True)
        rows, missing = order[places[:, :k]], max(0, k - len(order))
        return (
            pad(rows, (0, missing), value=-1),
            pad(scores[:, :k], (0, missing), value=-math.inf),
        )

    def n_rows(self) -> int:
        """Return how many rows are taken."""
        return int((self.ids >= 0).sum())

    def free_row(self, time: float) -> tuple[int, bool]:
        """Return the first free row, or else the one least likely to be recalled, and whether it gives way.

        Of equals the one of the smallest id does.
        """
        free = (self.ids < 0).nonzero()
        if len(free):
            return int(free[0]), False
        by_age = self.ids.argsort()
        return int(by_age[self.retrievability(time)[by_age].argmin()]), True

    def put(self, row: int, key: Tensor, value: Tensor, *, entry: int, time: float) -> None:
        """Make a row that of a new entry."""
        self.keys[row], self.values[row] = key, value
        self.ids[row], self.labels[row], self.weights[row] = entry, -1, 1
        self.half_life[row], self.recalled_at[row] = 1.0, time

    def merge(self, row: int, value: Tensor, *, time: float) -> None:
        """Recall a row, and make its value the mean of all that went into it."""
        retrievability = self.retrievability(time)[row]
        self.half_life[row] *= 1 + _GROWTH * (torch.exp(1 - retrievability) - 1)
        self.recalled_at[row] = time
        self.weights[row] += 1
        self.values[row] += (value - self.values[row]) / self.weights[row]

    def clear(self, rows: Tensor) -> None:
        """Free rows (n,), and leave nothing of what was in them."""
        for table in self.buffers():
            table[rows] = 0
        self.ids[rows], self.labels[rows] = -1, -1

    def retrievability(self, time: float) -> Tensor:
        """Return how likely each row (C,) float64 is to be recalled at a time; 0 where there is none."""
        gap = time - self.recalled_at
        held = (1 + _DECAY * gap / self.half_life.clamp(min=1e-300)).rsqrt()
        return torch.where(self.ids >= 0, held, 0.0)
