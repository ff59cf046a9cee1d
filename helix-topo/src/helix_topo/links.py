"""Classes of links by their stability: unstable, intermediate, stable; and who rose or fell when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.host import HostModule

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

Link = Literal["U", "I", "S"]
CLASSES: tuple[Link, ...] = ("U", "I", "S")
_NONE = -1


@attrs.frozen
class Change:
    """One promotion or demotion.

    Args:
        slot: Of which entry.
        time: When.
        before: Its class until then.
        after: Its class from then on.
    """

    slot: int
    time: float
    before: Link
    after: Link


class Links(HostModule):
    """The class of each slot, and the last changes of classes.

    Args:
        capacity: Slots.
        thresholds: Stabilities from which on a link is intermediate, and stable.
        n_logged: How many changes are kept; older ones are only counted.

    Raises:
        ArgumentError: The thresholds do not rise, or nothing could be logged.
    """

    classes: Tensor
    log: Tensor
    counts: Tensor

    def __init__(self, capacity: int, *, thresholds: tuple[float, float], n_logged: int = 1024) -> None:
        super().__init__()
        if not thresholds[0] < thresholds[1]:
            raise ArgumentError(f"thresholds are {thresholds}, allowed are two that rise")
        if n_logged < 1:
            raise ArgumentError(f"n_logged is {n_logged}, allowed is >= 1")
        self.thresholds = thresholds
        self.register_buffer("classes", torch.full((capacity,), _NONE, dtype=torch.int8))
        self.register_buffer("log", torch.zeros(n_logged, 4, dtype=torch.float64))
        # Promotions and demotions so far.
        self.register_buffer("counts", torch.zeros(2, dtype=torch.int64))

    def update(self, slots: NDArray[np.int64], stability: NDArray[np.float64], time: float) -> None:
        """Class slots (n,), no two the same, by their stabilities (n,), and log what changed."""
        classes = self.classes.numpy()
        before, after = classes[slots], self.class_of(stability)
        classes[slots] = after
        changed = np.flatnonzero((before != _NONE) & (before != after))
        self._note(
            np.stack([slots[changed], np.full(len(changed), time), before[changed], after[changed]], -1)
        )

    def class_of(self, stability: NDArray[np.float64]) -> NDArray[np.int8]:
        """Return the place in `CLASSES` of each stability (n,)."""
        return np.searchsorted(self.thresholds, stability, side="right").astype(np.int8)

    def forget(self, slots: NDArray[np.int64]) -> None:
        """Take slots (n,) out of all classes; that is no demotion."""
        self.classes.numpy()[slots] = _NONE

    def of(self, slot: int) -> Link | None:
        """Return the class of a slot, None where nothing is in it."""
        found = int(self.classes[slot])
        return None if found == _NONE else CLASSES[found]

    def count(self) -> dict[Link, int]:
        """Return how many links are of each class."""
        return {link: int((self.classes == place).sum()) for place, link in enumerate(CLASSES)}

    @property
    def n_promoted(self) -> int:
        """Promotions so far."""
        return int(self.counts[0])

    @property
    def n_demoted(self) -> int:
        """Demotions so far."""
        return int(self.counts[1])

    def changes(self) -> list[Change]:
        """Return the last changes, the oldest first."""
        total, size = int(self.counts.sum()), len(self.log)
        rows = [self.log[number % size].tolist() for number in range(max(0, total - size), total)]
        return [Change(int(slot), time, CLASSES[int(a)], CLASSES[int(b)]) for slot, time, a, b in rows]

    def _note(self, rows: NDArray[np.float64]) -> None:
        places = int(self.counts.sum()) + np.arange(len(rows))
        size = len(self.log)
        self.log.numpy()[places[-size:] % size] = rows[-size:]
        risen = int((rows[:, 3] > rows[:, 2]).sum())
        self.counts += torch.tensor([risen, len(rows) - risen])
