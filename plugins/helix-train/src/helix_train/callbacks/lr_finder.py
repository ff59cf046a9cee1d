"""The callback `lr-finder`: tries learning rates from low to high before a run begins."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch

from helix_kernel.errors import HelixError
from helix_train.callbacks.base import Callback
from helix_train.state import kept_rngs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from helix_train.callbacks.base import Run

_Trial = tuple[float, float]
"""A learning rate, and the smoothed loss that it was reached with."""


class LRFinder(Callback):
    """Raises the learning rate exponentially over a number of steps and watches the loss.

    The range test of Smith 2017 (arXiv:1506.01186, section 3.3), with the loss smoothed and the search ended
    when it diverges. The rate that is suggested is that at which the loss falls most for the logarithm
    of the rate. Afterwards weights, buffers, optimizer and random numbers are what they were, and the steps
    count for nothing. A run that is resumed does not search.

    Args:
        lowest: First learning rate.
        highest: Last learning rate.
        steps: How many steps from one to the other.
        smoothing: Share of the mean loss that a step keeps.
        diverged: Multiple of the lowest mean loss that ends the search.
        apply: Whether to train with the rate that was found.
    """

    name = "lr-finder"

    def __init__(
        self,
        *,
        lowest: float = 1e-6,
        highest: float = 1.0,
        steps: int = 100,
        smoothing: float = 0.9,
        diverged: float = 4.0,
        apply: bool = False,
    ) -> None:
        ratio = highest / lowest
        self._rates = [lowest * ratio ** (step / (steps - 1)) for step in range(steps)]
        self._smoothing = smoothing
        self._diverged = diverged
        self._apply = apply
        self._found: float | None = None

    def begin(self, run: Run) -> None:
        """Search, unless the run goes on from a checkpoint.

        Raises:
            HelixError: No rate made the loss fall.
        """
        if run.step:
            self._use(run)
            return
        weights = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
        moments = deepcopy(run.optimizer.state_dict())
        with kept_rngs():
            trials = list(self._trials(run))
        run.model.load_state_dict(weights)
        run.optimizer.load_state_dict(moments)
        lines = (json.dumps({"lr": rate, "loss": loss}) + "\n" for rate, loss in trials)
        if run.ranks.is_first:
            (run.out / "lr_finder.jsonl").write_text("".join(lines), encoding="utf-8")
        self._found = steepest(trials)
        if self._found is None:
            raise HelixError(
                f"lr-finder: no learning rate from {self._rates[0]:g} up made the loss fall; see "
                "lr_finder.jsonl, and try a lower `lowest`"
            )
        run.event("lr-finder", f"lr-finder suggests optimizer.lr={self._found:.3g}; see lr_finder.jsonl")
        self._use(run)

    def state_dict(self) -> dict[str, Any]:
        """Return the rate that was found; 0 for none."""
        return {"found": self._found or 0.0}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what `state_dict` returned."""
        self._found = float(state["found"]) or None

    def _use(self, run: Run) -> None:
        if self._apply and self._found is not None:
            run.set_base_rate(self._found)

    def _trials(self, run: Run) -> Iterator[_Trial]:
        mean, lowest = 0.0, math.inf
        for number, rate in enumerate(self._rates):
            for group in run.optimizer.param_groups:
                group["lr"] = rate
            loss = run.try_loss(number)
            if not math.isfinite(loss):
                break
            mean = self._smoothing * mean + (1 - self._smoothing) * loss
            smoothed = mean / (1 - self._smoothing ** (number + 1))
            yield rate, smoothed
            lowest = min(lowest, smoothed)
            if smoothed > self._diverged * lowest:
                break
            run.optimizer.step()
            run.optimizer.zero_grad(set_to_none=True)
        run.optimizer.zero_grad(set_to_none=True)


def steepest(trials: Sequence[_Trial]) -> float | None:
    """Return the rate at which the loss falls most for the rate's logarithm; None where it never falls."""
    if len(trials) < 3:
        return None
    rates = torch.tensor([rate for rate, _ in trials], dtype=torch.float64)
    losses = torch.tensor([loss for _, loss in trials], dtype=torch.float64)
    (slopes,) = torch.gradient(losses, spacing=(rates.log(),))
    at = int(slopes.argmin())
    return float(rates[at]) if slopes[at] < 0 else None
