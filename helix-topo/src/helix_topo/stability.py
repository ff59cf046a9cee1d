"""How long an entry will be remembered: stability, and what recalls make of it.

The forgetting curve is that of FSRS-4.5 (open-spaced-repetition, "The Algorithm"): a power law whose
stability S is the time after which nine recalls of ten succeed. That S grows the more at a recall the less
likely the recall was, and shrinks at a lapse, is after Ye et al., "A Stochastic Shortest Path Algorithm for
Optimizing Spaced Repetition Scheduling", KDD 2022. Where this package says "half-life" it means S.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]

FACTOR = 19 / 81
"""Makes the retrievability 0.9 where the time that passed is the stability."""

OLDER_THRESHOLDS = (0.3, 0.7)
"""Where the classes of links begin in the older closed form."""


@attrs.frozen(kw_only=True)
class Rule:
    """What a recall does to a stability.

    Args:
        initial: Stability of a new entry, in the unit of time.
        growth: w, how much a correct recall adds.
        lapse: By what a wrong recall multiplies.
        w_evidence: How much the evidence of use E adds to growth.
        w_context: How much the variety of contexts C does.
        w_phase: How much the regularity Φ of recalls does.

    Raises:
        ArgumentError: A number is out of range.
    """

    initial: float = 1.0
    growth: float = 8.0
    lapse: float = 0.4
    w_evidence: float = 0.0
    w_context: float = 0.0
    w_phase: float = 0.0

    def __attrs_post_init__(self) -> None:
        if not 0 < self.initial < np.inf:
            raise ArgumentError(f"initial is {self.initial}, allowed is a finite stability > 0")
        if not 0 < self.lapse <= 1:
            raise ArgumentError(f"lapse is {self.lapse}, allowed is > 0 and <= 1")
        for name in ("growth", "w_evidence", "w_context", "w_phase"):
            if not 0 <= getattr(self, name) < np.inf:
                raise ArgumentError(f"{name} is {getattr(self, name)}, allowed is a finite number >= 0")


@attrs.frozen(kw_only=True)
class ClosedForm:
    """The older closed form, by which a stability is what speaks for an entry now; see `older_stability`.

    Args:
        initial: Time without a recall after which R is 0.9.
        decay: What each unit of time without a recall takes away.

    Raises:
        ArgumentError: A number is out of range.
    """

    initial: float = 1.0
    decay: float = 0.01

    def __attrs_post_init__(self) -> None:
        if not 0 < self.initial < np.inf:
            raise ArgumentError(f"initial is {self.initial}, allowed is a finite time > 0")
        if not 0 <= self.decay < np.inf:
            raise ArgumentError(f"decay is {self.decay}, allowed is a finite number >= 0")


def retrievability(elapsed: Numbers, stability: Numbers) -> Numbers:
    """Return how likely entries are to be recalled: R = (1 + 19/81 · Δt / S)^(-1/2).

    Args:
        elapsed: Δt >= 0, the time since the last recall, of any shape.
        stability: S > 0, of that shape and unit.
    """
    recalled: Numbers = (1 + FACTOR * elapsed / stability) ** -0.5
    return recalled


def strengthened(
    stability: Numbers,
    recalled: Numbers,
    rule: Rule,
    *,
    evidence: Numbers | float = 0.0,
    context: Numbers | float = 0.0,
    phase: Numbers | float = 0.0,
) -> Numbers:
    """Return stabilities after a correct recall: S · (1 + w (e^(1-R) - 1)(1 + w_E E)(1 + w_C C)(1 + w_Φ Φ)).

    Args:
        stability: S before.
        recalled: R at the recall.
        rule: The weights.
        evidence: E, in bits; what is below 0 counts as 0, since a correct recall never weakens.
        context: C, from 0 to 1.
        phase: Φ, from 0 to 1.
    """
    gain = rule.growth * np.expm1(1 - recalled)
    gain = gain * (1 + rule.w_evidence * np.maximum(evidence, 0.0))
    grown: Numbers = stability * (1 + gain * (1 + rule.w_context * context) * (1 + rule.w_phase * phase))
    return grown


def weakened(stability: Numbers, rule: Rule) -> Numbers:
    """Return stabilities after a wrong recall."""
    return rule.lapse * stability


def older_stability(
    recalled: Numbers, *, context: Numbers, evidence: Numbers, phase: Numbers, decay: Numbers
) -> Numbers:
    """Return the older closed form, S = ln(1 + R + C) + E + Φ - decay.

    It keeps nothing from recall to recall. Its links are classed by `OLDER_THRESHOLDS`.

    Args:
        recalled: R.
        context: C.
        evidence: E.
        phase: Φ.
        decay: What is taken away for the time that passed.
    """
    found: Numbers = np.log1p(recalled + context) + evidence + phase - decay
    return found
