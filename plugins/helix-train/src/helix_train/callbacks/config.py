"""Options of the callbacks. Imports no torch."""

from __future__ import annotations

from typing import Literal

import attrs

from helix_kernel import option
from helix_kernel.errors import ArgumentError


@attrs.frozen(kw_only=True)
class EMAConfig:
    """An average of the weights, in which those of each step count exponentially less."""

    decay: float = option(0.999, ge=0, lt=1, help="share of the average that a step keeps")
    every: int = option(1, ge=1, help="steps between updates of the average")
    warm_up: bool = option(
        True, help="keep at most (1 + n) / (10 + n) in update n, so that the start is forgotten"
    )


@attrs.frozen(kw_only=True)
class EarlyStoppingConfig:
    """Ends a run that no longer gets better on what is held out."""

    metric: str = option("validation_loss", help="a value of a validation, as metrics.jsonl names it")
    mode: Literal["min", "max"] = option("min", help="whether lower or higher is better")
    patience: int = option(3, ge=1, help="validations without a gain that end the run")
    min_delta: float = option(0.0, ge=0, help="what counts as a gain must be more than this")


@attrs.frozen(kw_only=True)
class SpikeGuardConfig:
    """Leaves out steps whose loss or gradient jumps, and goes back where that does not help."""

    threshold: float = option(
        10.0, gt=0, help="deviations above the median, of 1.4826 times the median deviation, that are a spike"
    )
    window: int = option(50, ge=5, help="good steps that the medians are taken over")
    warm_up: int = option(10, ge=5, help="good steps before finite values are judged")
    patience: int = option(
        3, ge=1, help="spikes in a row after which the run rolls back; before, steps are skipped"
    )
    max_rollbacks: int = option(3, ge=0, help="rollbacks after which the run ends with an error")

    def __attrs_post_init__(self) -> None:
        if self.warm_up > self.window:
            raise ArgumentError(
                f"warm_up is {self.warm_up} with window={self.window}, allowed is at most the window"
            )


@attrs.frozen(kw_only=True)
class LRFinderConfig:
    """Tries learning rates from low to high before a run begins, and says which falls fastest."""

    lowest: float = option(1e-6, gt=0, help="first learning rate")
    highest: float = option(1.0, gt=0, help="last learning rate")
    steps: int = option(100, ge=10, help="steps to get from one to the other")
    smoothing: float = option(0.9, ge=0, lt=1, help="share of the mean loss that a step keeps")
    diverged: float = option(4.0, gt=1, help="multiple of the lowest mean loss that ends the search")
    apply: bool = option(False, help="train with the rate that was found instead of the optimizer's")

    def __attrs_post_init__(self) -> None:
        if self.lowest >= self.highest:
            raise ArgumentError(
                f"lowest is {self.lowest} and highest {self.highest}; it must be the lower one"
            )
