"""The entry least likely to be recalled gives way, by a stability that grows with each recall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import attrs
import numpy as np

from helix_topo.eviction.compiled import FSRS, CompiledPolicy, Layout
from helix_topo.ledger import Ledger
from helix_topo.stability import Rule

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

PER_OCTAVE = 8
"""Classes of stability to a factor of two."""

N_CLASSES = 256


class Fsrs(CompiledPolicy):
    """A list for each class of stability, in the order of recalls, the oldest of which are compared.

    So the victim is that of the lowest retrievability, with stabilities rounded to an eighth of an octave.
    They follow `helix_topo.stability`; the ledger has them unrounded, and the classes of the links
    that a memory tells of.

    Args:
        capacity: Slots.
        initial: Stability of a new entry, in units of the capacity by the clock of events.
        growth: w, how much a correct recall adds.
        lapse: By what a wrong recall multiplies.
        w_evidence: How much the bits that an entry saved add to growth.
        w_context: How much the variety of what came before does.
        w_phase: How much the regularity of recalls does.
        clock: Whether time is how many entries were added or recalled, or what the memory says.

    Raises:
        ArgumentError: An option is out of range.
    """

    def __init__(
        self,
        capacity: int,
        *,
        initial: float = 0.25,
        growth: float = 8.0,
        lapse: float = 0.4,
        w_evidence: float = 0.0,
        w_context: float = 0.0,
        w_phase: float = 0.0,
        clock: Literal["events", "time"] = "events",
    ) -> None:
        by_events = clock == "events"
        rule = Rule(
            initial=initial * capacity if by_events and capacity > 0 else initial,
            growth=growth,
            lapse=lapse,
            w_evidence=w_evidence,
            w_context=w_context,
            w_phase=w_phase,
        )
        layout = Layout(kind=FSRS, n_lists=N_CLASSES, by_events=by_events)
        super().__init__(capacity, layout, weights=attrs.asdict(rule))
        self.ledger = Ledger(capacity, rule)

    def added(self, slots: ArrayLike, time: float) -> None:
        """Take in that entries (n,) began in free slots."""
        super().added(slots, time)
        self._class_links(slots, time)

    def recalled(self, slots: ArrayLike, time: float, *, correct: bool = True) -> None:
        """Take in that entries (n,) were recalled; a wrong recall weakens."""
        super().recalled(slots, time, correct=correct)
        self._class_links(slots, time)

    def forgotten(self, slots: ArrayLike) -> None:
        """Take in that slots (n,) are free."""
        super().forgotten(slots)
        self.ledger.links.forget(np.asarray(slots, dtype=np.int64))

    def _class_links(self, slots: ArrayLike, time: float) -> None:
        stability = self.ledger.stability.numpy()
        distinct = np.unique(np.asarray(slots, dtype=np.int64))
        there = distinct[stability[distinct] > 0]
        self.ledger.links.update(there, stability[there], time)

    def _known(self) -> dict[str, Tensor]:
        evidence = dict(self.ledger.evidence.named_buffers())
        own = {"stability": self.ledger.stability, "recalled_at": self.ledger.recalled_at}
        return {**evidence, **own, "count": self.ledger.recalls}
