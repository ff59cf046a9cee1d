"""Least recently used: the entry whose last recall is longest ago gives way."""

from __future__ import annotations

from helix_topo.eviction.compiled import LRU, CompiledPolicy, Layout


class Lru(CompiledPolicy):
    """One list, in the order of recalls.

    Args:
        capacity: Slots.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity, Layout(kind=LRU, n_lists=1))
