"""Which of a run's checkpoints stay."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import attrs

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping


@attrs.frozen(kw_only=True)
class Retention:
    """A rule for which steps stay; a step stays if any part of the rule keeps it.

    Args:
        last: The newest steps to keep, at least 1; None keeps all.
        every: Steps that are multiples of this stay for good.
        best: So many steps with the best value of `metric` stay.
        metric: Name in the attribute ``metrics`` that `best` goes by. Steps without it, or where it is
            not finite, are never among the best.
        mode: Whether the least (``min``) or the greatest (``max``) value is best.

    Raises:
        ArgumentError: A number is too small, or one of `best` and `metric` comes without the other.
    """

    last: int | None = 3
    every: int | None = None
    best: int = 0
    metric: str | None = None
    mode: Literal["min", "max"] = "min"

    def __attrs_post_init__(self) -> None:
        """Check the rule."""
        if self.last is not None and self.last < 1:
            raise ArgumentError(f"keep is {self.last}; allowed is at least 1, or None to keep every step")
        if self.every is not None and self.every < 1:
            raise ArgumentError(f"every is {self.every}; allowed is at least 1, or None")
        if self.best < 0 or (self.best > 0) != (self.metric is not None):
            raise ArgumentError(
                f"best is {self.best} and metric is {self.metric!r}; give both, best at least 1, or neither"
            )
        if self.mode not in ("min", "max"):
            raise ArgumentError(f"mode is {self.mode!r}; allowed are 'min' and 'max'")

    def removable(self, saved: int, metrics: Mapping[int, Mapping[str, Any]]) -> list[int]:
        """Return the steps that need not stay, ascending.

        Args:
            saved: The step that was saved just now and is known to be good; it always stays.
            metrics: Step that is on disk → its metrics.
        """
        if self.last is None:
            return []
        others = sorted(step for step in metrics if step != saved)
        kept = {saved, *others[len(others) - (self.last - 1) :], *self._best(metrics)}
        return [step for step in others if step not in kept and not (self.every and step % self.every == 0)]

    def _best(self, metrics: Mapping[int, Mapping[str, Any]]) -> list[int]:
        sign = 1 if self.mode == "min" else -1
        values = {step: found.get(self.metric or "") for step, found in metrics.items()}
        finite = {
            step: sign * value
            for step, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        return sorted(finite, key=lambda step: (finite[step], -step))[: self.best]
