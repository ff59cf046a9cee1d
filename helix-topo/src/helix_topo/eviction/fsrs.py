"""The entry least likely to be recalled gives way, by a stability that grows with each recall."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np

from helix_kernel.errors import ArgumentError
from helix_topo.eviction.compiled import FSRS, CompiledPolicy, Layout, check_sketch, sketch_width
from helix_topo.ledger import Ledger
from helix_topo.stability import Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

PER_OCTAVE = 4
"""Classes of stability to a factor of two."""

N_CLASSES = 128


class Fsrs(CompiledPolicy):
    """A list for each class of stability, in the order of recalls, the oldest of which are compared.

    So the victim is that of the lowest retrievability, with stabilities rounded to a quarter of an octave.
    They follow `helix_topo.stability`; the ledger has them unrounded, and the classes of the links
    that a memory tells of. What gave way and is asked for again is no stranger: as in TinyLFU a sketch counts
    keys, and a new entry is the more stable the oftener its key came lately.

    Args:
        capacity: Slots.
        initial: Stability of a new entry, in units of the capacity by the clock of events.
        growth: w, how much a correct recall adds.
        lapse: By what a wrong recall multiplies.
        w_evidence: How much the bits that an entry saved add to growth.
        w_context: How much the variety of what came before does.
        w_phase: How much the regularity of recalls does.
        w_frequency: How much an entry's initial stability grows with each time that its key came before, as
            far as a sketch remembers; 0 does without the sketch. Without keys, no entry came before.
        sample: Keys, in units of the capacity, after which the sketch's counts are halved.
        counters: In each of its four rows, a slot, one byte each.
        clock: Whether time is how many entries were added or recalled, or what the memory says.

    Raises:
        ArgumentError: An option is out of range.
    """

    def __init__(
        self,
        capacity: int,
        *,
        initial: float = 0.1,
        growth: float = 8.0,
        lapse: float = 0.4,
        w_evidence: float = 0.0,
        w_context: float = 0.0,
        w_phase: float = 0.0,
        w_frequency: float = 2.0,
        sample: int = 100,
        counters: int = 16,
        clock: Literal["events", "time"] = "events",
    ) -> None:
        check_sketch(sample, counters)
        if not 0 <= w_frequency < math.inf:
            raise ArgumentError(f"w_frequency is {w_frequency}, allowed is a finite number >= 0")
        by_events = clock == "events"
        rule = Rule(
            initial=initial * capacity if by_events and capacity > 0 else initial,
            growth=growth,
            lapse=lapse,
            w_evidence=w_evidence,
            w_context=w_context,
            w_phase=w_phase,
        )
        layout = Layout(
            kind=FSRS,
            n_lists=N_CLASSES,
            by_events=by_events,
            width=sketch_width(capacity, counters) if w_frequency else 1,
            sample=sample * capacity,
        )
        weights = {**attrs.asdict(rule), "w_frequency": w_frequency}
        super().__init__(capacity, layout, weights=weights)
        self.ledger = Ledger(capacity, rule)

    def added(self, slots: ArrayLike, time: float) -> None:
        """Take in that entries (n,) began in free slots."""
        for batch in _distinct(slots):
            super().added(batch, time)
            self._class_links(batch, time)

    def recalled(self, slots: ArrayLike, time: float, *, correct: bool = True) -> None:
        """Take in that entries (n,) were recalled; a wrong recall weakens."""
        for batch in _distinct(slots):
            super().recalled(batch, time, correct=correct)
            self._class_links(batch, time)

    def forgotten(self, slots: ArrayLike) -> None:
        """Take in that slots (n,) are free."""
        super().forgotten(slots)
        self.ledger.links.forget(np.asarray(slots, dtype=np.int64))

    def _class_links(self, slots: NDArray[np.int64], time: float) -> None:
        stability = self.ledger.stability.numpy()
        there = slots[stability[slots] > 0]
        self.ledger.links.update(there, stability[there], time)

    def _known(self) -> dict[str, Tensor]:
        evidence = dict(self.ledger.evidence.named_buffers())
        own = {"stability": self.ledger.stability, "recalled_at": self.ledger.recalled_at}
        return {**evidence, **own, "count": self.ledger.recalls}


def _distinct(slots: ArrayLike) -> Iterable[NDArray[np.int64]]:
    """Return slots in batches in which none comes twice, so that no change of a link's class goes unseen."""
    places = np.asarray(slots, dtype=np.int64).reshape(-1)
    return [places] if len(np.unique(places)) == len(places) else places[:, None]
