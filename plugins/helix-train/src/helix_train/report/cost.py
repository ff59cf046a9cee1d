"""What a run paid for its loss: steps, time, tokens and operations to reach each level of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from helix_train.report.scale import round_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_train.report.series import Series

UNIT = 0.1
"""The gain in loss whose price the headline names."""

_LEVELS = 8


@attrs.frozen
class Spent:
    """What was spent from the beginning of a run to a step.

    Args:
        step: The step.
        seconds: Of training, validation and checkpoints left out; None where nobody measured.
        flops: Floating-point operations, the same.
        tokens: Tokens, the same.
    """

    step: float
    seconds: float | None
    flops: float | None
    tokens: float | None

    def minus(self, other: Spent) -> Spent:
        """Return what was spent between two steps."""
        return Spent(
            self.step - other.step,
            _difference(self.seconds, other.seconds),
            _difference(self.flops, other.flops),
            _difference(self.tokens, other.tokens),
        )

    def times(self, share: float) -> Spent:
        """Return a share of what was spent."""
        return Spent(
            self.step * share,
            *(None if value is None else value * share for value in (self.seconds, self.flops, self.tokens)),
        )


@attrs.frozen
class Level:
    """A level of the smoothed training loss, and what was spent until it was reached first."""

    loss: float
    spent: Spent


@attrs.frozen(eq=False)
class Cost:
    """What the training loss of a run cost.

    Args:
        loss: The training loss, as it was measured.
        seconds: How long training took since the point before, by step.
        flops_per_step: Floating-point operations of a step, if they are known.
        tokens_per_step: Tokens of a step, the same.
    """

    loss: Series
    seconds: Series
    flops_per_step: float | None
    tokens_per_step: float | None
    _best: NDArray[np.float64] = attrs.field(init=False)  # the least smoothed loss up to each point
    _time: NDArray[np.float64] = attrs.field(init=False)

    @_best.default
    def _least_so_far(self) -> NDArray[np.float64]:
        return np.minimum.accumulate(self.loss.smoothed().values)

    @_time.default
    def _seconds_so_far(self) -> NDArray[np.float64]:
        return np.cumsum(self.seconds.values)

    def levels(self) -> list[Level]:
        """Return round levels of the loss, falling, and what each took; the last is the least loss."""
        best = self._best
        if len(best) < 2 or best[0] <= best[-1]:
            return []
        step = round_up((best[0] - best[-1]) / _LEVELS)
        first, last = np.floor(best[0] / step), np.ceil(best[-1] / step)
        rounds = [float(number * step) for number in np.arange(first, last - 1, -1)]
        losses = [loss for loss in rounds if best[-1] < loss < best[0]]
        return [Level(loss, self._until(loss)) for loss in [*losses, float(best[-1])]]

    def last(self) -> Spent | None:
        """Return what the last `UNIT` of loss cost, to the end of the run; None if it gained less."""
        best = self._best
        if not len(best) or best[0] - best[-1] < UNIT:
            return None
        return self._spent(self.loss.steps[-1]).minus(self._until(best[-1] + UNIT))

    def average(self) -> Spent | None:
        """Return what `UNIT` of loss cost on average over the whole run; None if it gained less."""
        best = self._best
        if not len(best) or best[0] - best[-1] < UNIT:
            return None
        return self._spent(self.loss.steps[-1]).times(UNIT / float(best[0] - best[-1]))

    def _until(self, loss: float) -> Spent:
        # A level is a sum, and so may miss the value that it means by a rounding.
        reached = int(np.argmax(self._best <= loss + 1e-12))
        return self._spent(self.loss.steps[reached])

    def _spent(self, step: float) -> Spent:
        return Spent(
            float(step),
            self._seconds(float(step)),
            None if self.flops_per_step is None else self.flops_per_step * float(step),
            None if self.tokens_per_step is None else self.tokens_per_step * float(step),
        )

    def _seconds(self, step: float) -> float | None:
        if not len(self._time):
            return None
        n_before = int(np.searchsorted(self.seconds.steps, step, side="right"))
        return float(self._time[n_before - 1]) if n_before else 0.0


def _difference(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else whole - part
