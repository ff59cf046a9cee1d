"""Schedules that warm up linearly and then decay over the rest of the run.

With w warm-up steps of T in total, step s (from 0) gets (s + 1) / w of the full rate while s < w,
and then d(t), where t = (s - w) / (T - w) runs from 0 to just below 1 at the last step. After the end t
stays 1. A warm-up that is longer than the run is simply cut off.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from helix_kernel.errors import ArgumentError


class Schedule(ABC):
    """A multiple of the optimizer's learning rate for each step.

    Args:
        total_steps: Steps of the whole run, at least 1.
        warmup_steps: Steps in which the rate grows linearly to its full value, at least 0.

    Raises:
        ArgumentError: An argument is out of range.
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0) -> None:
        if total_steps < 1:
            raise ArgumentError(f"total_steps is {total_steps!r}, allowed is >= 1")
        if warmup_steps < 0:
            raise ArgumentError(f"warmup_steps is {warmup_steps!r}, allowed is >= 0")
        self.total_steps = total_steps
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        """Return the multiple for a step.

        Args:
            step: Number of the step, from 0.
        """
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        if step >= self.total_steps:
            return self.decay(1.0)
        return self.decay((step - self.warmup_steps) / (self.total_steps - self.warmup_steps))

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Return d(t), the multiple after a share of the steps that follow the warm-up, 0 to 1."""


class Constant(Schedule):
    """d(t) = 1.

    Args:
        total_steps: Steps of the whole run, at least 1.
        warmup_steps: Steps in which the rate grows linearly to its full value.
    """

    def decay(self, progress: float) -> float:  # noqa: ARG002 - constant is the point
        """Return 1."""
        return 1.0


class _Decay(Schedule):
    """A schedule with a final multiple."""

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final: float = 0.0) -> None:
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps)
        if not final >= 0:
            raise ArgumentError(f"final is {final!r}, allowed is >= 0")
        self.final = final


class Linear(_Decay):
    """d(t) = 1 + (final - 1) t.

    Args:
        total_steps: Steps of the whole run, at least 1.
        warmup_steps: Steps in which the rate grows linearly to its full value.
        final: Multiple at the end of the run, at least 0.
    """

    def decay(self, progress: float) -> float:
        """Return the multiple on the line from 1 to `final`."""
        return 1 + (self.final - 1) * progress


class Exponential(_Decay):
    """d(t) = final**t.

    Args:
        total_steps: Steps of the whole run, at least 1.
        warmup_steps: Steps in which the rate grows linearly to its full value.
        final: Multiple at the end of the run, above 0.
    """

    def __init__(self, *, total_steps: int, warmup_steps: int = 0, final: float = 0.01) -> None:
        super().__init__(total_steps=total_steps, warmup_steps=warmup_steps, final=final)
        if final == 0:
            raise ArgumentError("final is 0, which no factor reaches; allowed is > 0")

    def decay(self, progress: float) -> float:
        """Return the multiple on the geometric line from 1 to `final`."""
        return math.pow(self.final, progress)


class Cosine(_Decay):
    """d(t) = final + (1 - final) (1 + cos(pi t)) / 2 (Loshchilov & Hutter 2017, equation 5, one cycle).

    Args:
        total_steps: Steps of the whole run, at least 1.
        warmup_steps: Steps in which the rate grows linearly to its full value.
        final: Multiple at the end of the run, at least 0.
    """

    def decay(self, progress: float) -> float:
        """Return the multiple on the half wave from 1 to `final`."""
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2
