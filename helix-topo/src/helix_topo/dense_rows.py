"""A table of vectors with values, and how stable each is: what the tier of stable cores is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import normalize, pad

from helix_topo.host import HostModule
from helix_topo.stability import Rule, retrievability, strengthened

if TYPE_CHECKING:
    from torch import Tensor

_RULE = Rule()


class DenseRows(HostModule):
    """Rows of a key, a value, how much went into them, and their half-life; all of it buffers.

    The half-life is that of `helix_topo.stability`: it begins at 1 and grows with each recall, the more the
    less likely that was.

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
        self.half_life[row], self.recalled_at[row] = _RULE.initial, time

    def merge(self, row: int, value: Tensor, *, time: float) -> None:
        """Recall a row, and make its value the mean of all that went into it."""
        before = self.half_life.numpy()[row : row + 1]
        recalled = self.retrievability(time).numpy()[row : row + 1]
        self.half_life[row] = float(strengthened(before, recalled, _RULE)[0])
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
        elapsed, taken = (time - self.recalled_at).numpy(), self.ids >= 0
        half_life = torch.where(taken, self.half_life, 1.0).numpy()
        return torch.where(taken, torch.from_numpy(retrievability(elapsed.clip(min=0), half_life)), 0.0)
