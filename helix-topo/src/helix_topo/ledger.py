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
from helix_topo.stability import (
    OLDER_THRESHOLDS,
    ClosedForm,
    Rule,
    older_stability,
    retrievability,
    strengthened,
    weakened,
)

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

    By a `Rule` a stability grows and shrinks with recalls, and entries stand by their retrievability. By the
    `ClosedForm` nothing of the kind is kept: what speaks for an entry now is both its standing and what its
    link is classed by, and `stability` is the constant by which R falls.

    Args:
        capacity: Slots.
        rule: What a recall does to a stability.
        thresholds: Stabilities from which on a link is intermediate, and stable; in units of the initial one.
            The closed form has its own.
    """

    stability: Tensor
    recalled_at: Tensor
    recalls: Tensor
    clock: Tensor

    def __init__(
        self,
        capacity: int,
        rule: Rule | ClosedForm | None = None,
        *,
        thresholds: tuple[float, float] = THRESHOLDS,
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
        classes = OLDER_THRESHOLDS if isinstance(self.rule, ClosedForm) else (lower, upper)
        self.links = Links(capacity, thresholds=classes)

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
        self.links.update(distinct, self._now(distinct, time), time)

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

    def standing(self, time: float) -> Numbers:
        """Return what entries (capacity,) stand by: the lowest gives way first; -inf where nothing is.

        It is the retrievability, or, by the closed form, the stability as it is now.
        """
        slots = np.flatnonzero(self.stability.numpy() > 0)
        found = np.full(len(self.stability), -np.inf)
        closed = isinstance(self.rule, ClosedForm)
        found[slots] = self._now(slots, time) if closed else self.retrievability(time)[slots]
        return found

    def classed(self, time: float) -> None:
        """Class every entry by its stability as it is at a time; only the closed form's moves by itself."""
        slots = np.flatnonzero(self.stability.numpy() > 0)
        self.links.update(slots, self._now(slots, time), time)

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
        if isinstance(self.rule, Rule):
            stability[slots] = self._after(slots, elapsed, self.rule, correct=correct)
        if correct or isinstance(self.rule, Rule):  # what proved wrong is, by the closed form, no recall
            last[slots] = time
        self.recalls.numpy()[slots] += correct
        self.links.update(slots, self._now(slots, time), time)

    def _after(self, slots: Slots, elapsed: Numbers, rule: Rule, *, correct: bool) -> Numbers:
        """Return the stabilities (n,) after a recall."""
        before = self.stability.numpy()[slots]
        if not correct:
            return weakened(before, rule)
        return strengthened(before, retrievability(elapsed, before), rule, **self._spoken_for(slots))

    def _now(self, slots: Slots, time: float) -> Numbers:
        """Return the stabilities (n,) by which links are classed."""
        stability = self.stability.numpy()[slots]
        if isinstance(self.rule, Rule):
            return stability
        elapsed = np.maximum(time - self.recalled_at.numpy()[slots], 0.0)
        recalled, decay = retrievability(elapsed, stability), self.rule.decay * elapsed
        return older_stability(recalled, decay=decay, **self._spoken_for(slots))

    def _spoken_for(self, slots: Slots) -> dict[str, Numbers]:
        """Return E, C and Φ (n,) by name."""
        of = self.evidence
        return {"evidence": of.evidence(slots), "context": of.context(slots), "phase": of.phase(slots)}

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
