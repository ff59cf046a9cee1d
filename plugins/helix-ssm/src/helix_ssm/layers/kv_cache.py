"""What attention keeps of the tokens it has seen: keys and values that know their positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

N_RECENT = 64
"""Slots of `AttentionState.recent` at which they move to `settled`."""


class Cache(NamedTuple):
    """Keys and values in T slots; heads before slots, so that a product with them copies nothing.

    Attributes:
        keys: (B, H, T, K).
        values: (B, H, T, K).
        positions: The token in each slot (B, T), int64; -1 marks an empty slot.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor

    @property
    def n_slots(self) -> int:
        """Number of slots T."""
        return self.positions.shape[1]

    def between(self, start: int, end: int) -> Cache:
        """Return the slots from `start` up to `end`."""
        return Cache(self.keys[:, :, start:end], self.values[:, :, start:end], self.positions[:, start:end])

    def then(self, other: Cache) -> Cache:
        """Return these slots and then the other's."""
        pairs = zip(self, other, (2, 2, 1), strict=True)
        return Cache(*(torch.cat([one, two], dim=dim) for one, two, dim in pairs))

    def right_aligned(self) -> Cache:
        """Return the cache with each row's empty slots before its others, in as few slots as do."""
        filled = self.positions >= 0
        order = filled.int().argsort(dim=1, stable=True)[:, self.n_slots - int(filled.sum(1).max()) :]
        index = order[:, None, :, None]
        keys, values = (x.take_along_dim(index, dim=2) for x in (self.keys, self.values))
        return Cache(keys, values, self.positions.take_along_dim(order, dim=1))

    def padded(self, n_slots: int) -> Cache:
        """Return the last `n_slots` slots, with empty ones before them where there are fewer."""
        missing = n_slots - self.n_slots
        keys, values = (F.pad(x, (0, 0, missing, 0)) for x in (self.keys, self.values))
        return Cache(keys, values, F.pad(self.positions, (missing, 0), value=-1))


class AttentionState(NamedTuple):
    """What attention carries from token to token; without a window it grows by 2 H K numbers a token.

    New tokens come to `recent`, which is copied at every step, and move to `settled` 64 at a time: a step
    copies few slots, though it changes no state. With a window, `recent` holds the last window - 1 tokens
    and `settled` is empty, so that the state's shape never changes.

    Attributes:
        settled: Older tokens.
        recent: The tokens after those.
        length: Number of tokens that each row has seen (B,), int64.
    """

    settled: Cache
    recent: Cache
    length: Tensor

    def append(self, chunk: Cache, *, window: int | None, realign: bool) -> AttentionState:
        """Return the state after a chunk.

        Args:
            chunk: Keys and values of its tokens; its empty slots count for nothing.
            window: How many tokens a token sees, itself included; None for all.
            realign: Whether to drop empty slots, where rows got chunks of different lengths. It reads
                the positions, which on a GPU waits for it.
        """
        length = self.length + (chunk.positions >= 0).sum(1)
        recent = self.recent.then(chunk)
        if window is not None:
            recent = recent.right_aligned() if realign else recent
            return AttentionState(self.settled, recent.padded(window - 1), length)
        if recent.n_slots < N_RECENT:
            return AttentionState(self.settled, recent, length)
        settled = self.settled.then(recent)
        return AttentionState(settled.right_aligned() if realign else settled, recent.between(0, 0), length)

    @staticmethod
    def join_rows(states: Sequence[AttentionState]) -> AttentionState:
        """Return one state with the rows of the given ones, which may have seen unequally many tokens."""
        return AttentionState(
            _join([state.settled for state in states]),
            _join([state.recent for state in states]),
            torch.cat([state.length for state in states]),
        )


def empty_cache(like: Tensor, shape: tuple[int, int, int, int]) -> Cache:
    """Return a cache of `shape` (B, H, T, K) whose slots are all empty, on the device and dtype of `like`."""
    batch_size, _, n_slots, _ = shape
    positions = torch.full((batch_size, n_slots), -1, device=like.device)
    return Cache(like.new_zeros(shape), like.new_zeros(shape), positions)


def _join(caches: Sequence[Cache]) -> Cache:
    n_slots = max(cache.n_slots for cache in caches)
    parts = zip(*(cache.padded(n_slots) for cache in caches), strict=True)
    return Cache(*(torch.cat(part) for part in parts))
