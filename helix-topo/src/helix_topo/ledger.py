"""What is known of each slot of a memory: its stability, its last recall, and what speaks for it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_topo.evidence import Evidence
from helix_topo.host import HostModule
from helix_topo.links import Links
from helix_topo.stability import Rule, retrievability, strengthened, weakened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

    Slots = NDArray[np.int64]
    Numbers = NDArray[np.float64]

THRESHOLDS = (4.0, 16.0)
"""Stabilities from which on a link is intermediate, and stable; in units of the initial one."""


class Ledger(HostModule):
    """Stability, time of the last recall, evidence and link class by slot; all of it buffers.

    Args:
        capacity: Slots.
        rule: What a recall does to a stability.
        thresholds: Stabilities from which on a link is intermediate, and stable; in units of the initial one.
    """

    stability: Tensor
    recalled_at: Tensor
    recalls: Tensor
    clock: Tensor

    def __init__(
        self, capacity: int, rule: Rule | None = None, *, thresholds: tuple[float, float] = THRESHOLDS
    ) -> None:
        super().__init__()
        if capacity < 1:
            raise ArgumentError(f"capacity is {capacity}, allowed is >= 1")
        self.rule = rule or Rule()
        # A stability of 0 marks a slot in which nothing is.
        self.register_buffer("stability", torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("recalled_at", torch.zeros(capacity, dtype=torch.float64))
        self.register_buffer("recalls", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("clock", torch.tensor(-math.inf, dtype=torch.float64))
        self.evidence = Evidence(capacity)
        lower, upper = (self.rule.initial * threshold for threshold in thresholds)
        self.links = Links(capacity, thresholds=(lower, upper))

    def added(self, slots: ArrayLike, time: float) -> None:
        """Begin an entry in each of slots (n,), whatever was there before.

        Raises:
            ArgumentError: A slot is out of range, or time runs backwards.
        """
        places = self._checked(slots, time)
        self.forgotten(places)
        self.stability.numpy()[places] = self.rule.initial
        self.recalled_at.numpy()[places] = time
        distinct = np.unique(places)
        self.links.update(distinct, self.stability.numpy()[distinct], time)

    def recalled(
        self,
        slots: ArrayLike,
        time: float,
        *,
        correct: bool = True,
        saved_bits: ArrayLike | None = None,
        before: ArrayLike | None = None,
    ) -> None:
        """Take in recalls of slots (n,), one after another; those in which nothing is are passed over.

        Args:
            slots: Which were recalled; one may come several times.
            time: When.
            correct: Whether what was recalled proved right.
            saved_bits: What each recall saved (n,), for E.
            before: What came before each, as numbers that stand for it (n,), for C.

        Raises:
            ArgumentError: A slot is out of range, or time runs backwards.
        """
        places = self._checked(slots, time)
        bits = None if saved_bits is None else np.asarray(saved_bits, dtype=np.float64)
        came = None if before is None else np.asarray(before, dtype=np.int64)
        for rows in _rounds(places):
            known = rows[self.stability.numpy()[places[rows]] > 0]
            if bits is not None:
                self.evidence.add_saved(places[known], bits[known])
            if came is not None:
                self.evidence.add_before(places[known], came[known])
            self._recall(places[known], time, correct=correct)

    def forgotten(self, slots: ArrayLike) -> None:
        """Leave nothing of what is known of slots (n,)."""
        places = np.asarray(slots, dtype=np.int64)
        for table in (self.stability, self.recalled_at, self.recalls):
            table.numpy()[places] = 0
        self.evidence.forget(places)
        self.links.forget(places)

    def retrievability(self, time: float) -> Numbers:
        """Return how likely each slot (capacity,) is to be recalled; 0 where nothing is in it."""
        there = self.stability.numpy() > 0
        elapsed = np.maximum(time - self.recalled_at.numpy(), 0.0)
        return np.where(there, retrievability(elapsed, np.where(there, self.stability.numpy(), 1.0)), 0.0)

    def state(self) -> dict[str, Any]:
        """Return all of it as copies, by name."""
        return {name: table.clone() for name, table in self.named_buffers()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the ledger that `state` was taken from.

        Raises:
            InputError: It is that of a ledger of another size.
        """
        for name, table in self.named_buffers():
            if name not in state or state[name].shape != table.shape:
                given = tuple(state[name].shape) if name in state else None
                raise InputError(
                    f"ledger: {name} of the state has shape {given}, allowed is {tuple(table.shape)}: make "
                    "the memory with the capacity that it was saved with"
                )
        self.load_state_dict(dict(state))

    def _recall(self, slots: Slots, time: float, *, correct: bool) -> None:
        """Take in recalls of slots (n,), no two the same, in which there are entries."""
        stability, last = self.stability.numpy(), self.recalled_at.numpy()
        elapsed = time - last[slots]
        self.evidence.add_gap(slots, elapsed)
        if correct:
            stability[slots] = strengthened(
                stability[slots],
                retrievability(elapsed, stability[slots]),
                self.rule,
                evidence=self.evidence.evidence(slots),
                context=self.evidence.context(slots),
                phase=self.evidence.phase(slots),
            )
            self.recalls.numpy()[slots] += 1
        else:
            stability[slots] = weakened(stability[slots], self.rule)
        last[slots] = time
        self.links.update(slots, stability[slots], time)

    def _checked(self, slots: ArrayLike, time: float) -> Slots:
        places = np.asarray(slots, dtype=np.int64)
        wrong = places[(places < 0) | (places >= len(self.stability))]
        if len(wrong):
            raise ArgumentError(f"slot {wrong[0]} is given, allowed are 0 to {len(self.stability) - 1}")
        if not float(self.clock) <= time < math.inf:
            raise ArgumentError(f"time is {time}, allowed is a finite one >= {float(self.clock)}")
        self.clock.fill_(time)
        return places


def _rounds(slots: Slots) -> Iterator[Slots]:
    """Yield the places of slots in rounds in which no slot comes twice, each slot's in their order."""
    left = np.arange(len(slots))
    while len(left):
        first = np.sort(np.unique(slots[left], return_index=True)[1])
        yield left[first]
        left = np.delete(left, first)
