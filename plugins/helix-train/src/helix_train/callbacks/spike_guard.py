"""The callback `spike-guard`: leaves out steps that would throw the weights away."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import HelixError
from helix_train.callbacks.base import Callback, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_train.callbacks.base import Gradients, Run

# The median absolute deviation times this is the standard deviation of normal numbers (Hampel 1974).
_DEVIATION_OF_NORMAL = 1.4826
# Else steps that are all alike would make any other a spike.
_LEAST_SHARE = 0.01


class SpikeGuard(Callback):
    """Skips a step whose loss or gradient norm jumps, and rolls back where spikes follow each other.

    A value is a spike where it is not finite, or lies more than `threshold` robust deviations above the
    median of the last good steps: median + threshold · 1.4826 · median(|x - median|). Spikes do not enter the
    window, so that they cannot make each other look normal.

    Args:
        threshold: How many deviations.
        window: How many good steps are looked back on.
        warm_up: How many good steps it takes before finite values are judged.
        patience: How many spikes in a row make the run roll back; those before are skipped.
        max_rollbacks: How often it may roll back.
    """

    name = "spike-guard"

    def __init__(
        self,
        *,
        threshold: float = 10.0,
        window: int = 50,
        warm_up: int = 10,
        patience: int = 3,
        max_rollbacks: int = 3,
    ) -> None:
        self._threshold = threshold
        self._warm_up = warm_up
        self._patience = patience
        self._max_rollbacks = max_rollbacks
        self._losses: deque[float] = deque(maxlen=window)
        self._norms: deque[float] = deque(maxlen=window)
        self._in_a_row = self._rollbacks = 0

    def judge(self, run: Run, gradients: Gradients) -> Verdict:
        """Say what becomes of a step.

        Raises:
            HelixError: The run has rolled back as often as it may.
        """
        spike = self._spike(gradients)
        if not spike:
            self._in_a_row = 0
            self._losses.append(gradients.loss)
            self._norms.append(gradients.norm)
            return Verdict.PROCEED
        self._in_a_row += 1
        if self._in_a_row < self._patience:
            run.event("skipped", f"skipped: {spike}")
            return Verdict.SKIP
        if self._rollbacks >= self._max_rollbacks:
            raise HelixError(
                f"{spike}, the {self._in_a_row}. spike in a row, after {self._rollbacks} rollbacks "
                "(spike-guard.max_rollbacks); lower optimizer.lr, or look at the data of these steps"
            )
        run.event("spike", f"rolling back: {spike}, the {self._in_a_row}. spike in a row")
        return Verdict.ROLL_BACK

    def rolled_back(self, run: Run) -> None:  # noqa: ARG002 - the run is in no other state than told
        """Count it, and begin to look anew."""
        self._rollbacks += 1
        self._in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the window and the counts."""
        return {
            "losses": list(self._losses),
            "norms": list(self._norms),
            "in_a_row": self._in_a_row,
            "rollbacks": self._rollbacks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned; rollbacks are never forgotten."""
        for window, name in ((self._losses, "losses"), (self._norms, "norms")):
            window.clear()
            window.extend(state[name])
        self._in_a_row = int(state["in_a_row"])
        self._rollbacks = max(self._rollbacks, int(state["rollbacks"]))

    def _spike(self, gradients: Gradients) -> str:
        """Return what is wrong with a step, or nothing."""
        judged = (("loss", gradients.loss, self._losses), ("gradient norm", gradients.norm, self._norms))
        for name, value, window in judged:
            if not math.isfinite(value):
                return f"{name} is {value}"
            if len(window) >= self._warm_up and value > (limit := self._limit(window)):
                return f"{name} is {value:.4g}, above {limit:.4g}"
        return ""

    def _limit(self, window: Sequence[float]) -> float:
        middle = median(window)
        deviation = _DEVIATION_OF_NORMAL * median(abs(value - middle) for value in window)
        return middle + self._threshold * max(deviation, _LEAST_SHARE * abs(middle))
