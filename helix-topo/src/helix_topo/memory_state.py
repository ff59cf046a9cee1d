"""What a memory layer keeps of the positions it has seen: keys and values that know where they stood."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Sequence

N_RECENT = 64
"""Slots of `MemoryState.recent` at which they move to `settled`."""


class Store(NamedTuple):
    """Keys and values in T slots, the newest last.

    Attributes:
        keys: (B, H, T, K), of unit length.
        values: (B, H, T, K).
        positions: The position in each slot (B, T), int64; -1 marks an empty slot.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor

    @property
    def n_slots(self) -> int:
        """Number of slots T."""
        return self.positions.shape[1]

    def between(self, start: int, end: int) -> Store:
        """Return the slots from `start` up to `end`."""
        return Store(self.keys[:, :, start:end], self.values[:, :, start:end], self.positions[:, start:end])

    def then(self, other: Store) -> Store:
        """Return these slots and then the other's."""
        return Store(
            torch.cat([self.keys, other.keys], dim=2),
            torch.cat([self.values, other.values], dim=2),
            torch.cat([self.positions, other.positions], dim=1),
        )

    def widened(self, n_slots: int) -> Store:
        """Return `n_slots` slots, empty ones before those that are here."""
        more = n_slots - self.n_slots
        keys, values = (pad(x, (0, 0, more, 0)) for x in (self.keys, self.values))
        return Store(keys, values, pad(self.positions, (more, 0), value=-1))


class MemoryState(NamedTuple):
    """What a memory layer carries from token to token.

    New positions come to `recent`, which every step copies, and move to `settled` 64 at a time. Without a
    window the state grows by 2 H K numbers a token; with one it has at most window + 63 slots.

    Attributes:
        settled: Older positions.
        recent: Those after them.
        last: The last inputs (B, shift, D), from which the next keys are made.
        length: Number of tokens that each row has seen (B,), int64.
    """

    settled: Store
    recent: Store
    last: Tensor
    length: Tensor

    def append(self, chunk: Store, last: Tensor, *, window: int | None) -> MemoryState:
        """Return the state after a chunk, which ended with the inputs `last`."""
        length, recent = self.length + chunk.n_slots, self.recent.then(chunk)
        if recent.n_slots < N_RECENT:
            return MemoryState(self.settled, recent, last, length)
        settled = self.settled.then(recent)
        first = 0 if window is None else max(0, settled.n_slots - window + 1)
        return MemoryState(settled.between(first, settled.n_slots), recent.between(0, 0), last, length)

    @staticmethod
    def join_rows(states: Sequence[MemoryState]) -> MemoryState:
        """Return one state with the rows of the given ones, which may have seen unequally many tokens."""
        return MemoryState(
            _join([state.settled for state in states]),
            _join([state.recent for state in states]),
            torch.cat([state.last for state in states]),
            torch.cat([state.length for state in states]),
        )


def empty_store(like: Tensor, shape: tuple[int, int, int]) -> Store:
    """Return a store without slots for `shape` (B, H, K), on the device and dtype of `like`."""
    batch_size, n_heads, head_dim = shape
    nothing = like.new_zeros(batch_size, n_heads, 0, head_dim)
    return Store(nothing, nothing, torch.zeros(batch_size, 0, dtype=torch.int64, device=like.device))


def _join(stores: Sequence[Store]) -> Store:
    n_slots = max(store.n_slots for store in stores)
    rows = zip(*(store.widened(n_slots) for store in stores), strict=True)
    return Store(*(torch.cat(parts) for parts in rows))
