"""The callback `early-stopping`: ends a run that no longer gets better."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.callbacks.base import Callback

if TYPE_CHECKING:
    from collections.abc import Mapping

    from helix_train.callbacks.base import Run
    from helix_train.evaluation import Evaluation


class EarlyStopping(Callback):
    """Ends the run, with a checkpoint, after validations that brought no gain (Prechelt 1998, class UP).

    Args:
        metric: Which value of a validation, by its name in metrics.jsonl.
        mode: Whether lower (``"min"``) or higher (``"max"``) is better.
        patience: How many validations in a row without a gain end the run.
        min_delta: What counts as a gain must be more than this.
    """

    name = "early-stopping"

    def __init__(
        self,
        *,
        metric: str = "validation_loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 3,
        min_delta: float = 0.0,
    ) -> None:
        self._metric = metric
        self._sign = 1 if mode == "min" else -1
        self._patience = patience
        self._min_delta = min_delta
        self._best, self._best_step, self._waited = math.inf, 0, 0
        self._judged_step = -1

    def begin(self, run: Run) -> None:
        """Check that the run validates while it trains.

        Raises:
            ArgumentError: It does not.
        """
        if not run.options.validate_every:
            raise ArgumentError(
                "trainer.callbacks: early-stopping goes by validations, and trainer.validate_every=0 makes "
                "none while training; set it"
            )

    def validated(self, run: Run, evaluation: Evaluation) -> None:
        """Compare a validation with the best so far; a run that is resumed at its end repeats its last one.

        Raises:
            ArgumentError: It has no such value.
        """
        value = self._sign * self._value(evaluation)
        if run.step == self._judged_step:
            return
        self._judged_step = run.step
        if value < self._best - self._min_delta:
            self._best, self._best_step, self._waited = value, run.step, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            run.stop(
                f"early-stopping ends the run: {self._metric} was best at step {self._best_step}, "
                f"{self._sign * self._best:.6g}, {self._waited} validations ago"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its step, the validations since, and the step of the last one."""
        return {
            "best": self._best,
            "best_step": self._best_step,
            "waited": self._waited,
            "judged_step": self._judged_step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._best, self._best_step = float(state["best"]), int(state["best_step"])
        self._waited = int(state["waited"])
        self._judged_step = int(state.get("judged_step", -1))  # older checkpoints lack it

    def _value(self, evaluation: Evaluation) -> float:
        known = {name: value for name, value in evaluation.values().items() if value is not None}
        if self._metric not in known:
            raise ArgumentError(
                f"trainer.callbacks: early-stopping.metric is {self._metric!r}, allowed is one of "
                f"{tuple(known)}.{did_you_mean(self._metric, known)}"
            )
        return known[self._metric]
