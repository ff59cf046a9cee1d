"""Which slots of a table are free; of those the lowest is taken first."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class FreeSlots:
    """The free slots of a table, such that the order in which they are taken follows from which are free.

    Args:
        taken: (capacity,) bool, which slots are taken.
    """

    def __init__(self, taken: Tensor) -> None:
        self._capacity = len(taken)
        used = taken.nonzero().flatten()
        self._first_unused = int(used[-1]) + 1 if len(used) else 0
        self._holes: list[int] = (~taken[: self._first_unused]).nonzero().flatten().tolist()

    def __len__(self) -> int:
        """Return how many slots are free."""
        return self._capacity - self._first_unused + len(self._holes)

    def take(self, count: int) -> list[int]:
        """Take up to `count` slots, the lowest first; fewer where fewer are free."""
        slots = [heapq.heappop(self._holes) for _ in range(min(count, len(self._holes)))]
        end = min(self._capacity, self._first_unused + count - len(slots))
        slots += range(self._first_unused, end)
        self._first_unused = end
        return slots

    def give_back(self, slots: list[int]) -> None:
        """Make taken slots free."""
        for slot in slots:
            heapq.heappush(self._holes, slot)
