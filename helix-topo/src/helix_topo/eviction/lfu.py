"""Least frequently used: the entry that was recalled least often gives way."""

from __future__ import annotations

from helix_topo.eviction.compiled import LFU, CompiledPolicy, Layout

MOST = 4095
"""Recalls from which on entries count as equally often recalled."""


class Lfu(CompiledPolicy):
    """A list for each number of recalls; of equal ones the least recent gives way. Counts end with entries.

    Args:
        capacity: Slots.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, Layout(kind=LFU, n_lists=MOST + 1))
