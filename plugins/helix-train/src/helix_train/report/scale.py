"""An axis: where a value lies on it, and the round values that it is marked at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUND = (1.0, 2.0, 5.0, 10.0)
_LEAST = 1e-30
"""Ratios to what is smaller mean nothing."""


@attrs.frozen
class Scale:
    """An axis from one value to another.

    Args:
        low: Its beginning.
        high: Its end, above `low`.
        is_log: Whether equal distances are equal ratios; both ends are then above 0.
    """

    low: float
    high: float
    is_log: bool = False

    @classmethod
    def around(cls, low: float, high: float, *, is_log: bool = False, from_zero: bool = False) -> Scale:
        """Return an axis with a little room beyond the values, which may be equal.

        Args:
            low: The least value.
            high: The greatest.
            is_log: Whether it is to be logarithmic, if the values allow it.
            from_zero: Whether it begins at 0, if the values allow it.
        """
        if is_log and low > _LEAST:
            room = max((high / low) ** 0.05, 1.02)
            return cls(low / room, high * room, is_log=True)
        room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
        return cls(0.0 if from_zero and low >= 0 else low - room, high + room)

    def at(self, value: float) -> float:
        """Return where a value lies, from 0 at the beginning to 1 at the end."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """Return at most so many round values, ascending."""
        if self.is_log and (found := self._ratios(most)):
            return found
        step = round_up((self.high - self.low) / most)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [number * step for number in range(first, last + 1)]

    def _ratios(self, most: int) -> list[float]:
        """Return decades, with 2 and 5 between them where there is room; none where they tell too little."""
        for factors in ((1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,)):
            found = [value for value in self._products(factors) if self.low <= value <= self.high]
            if 2 < len(found) <= most:
                return found
        every = math.ceil(math.log10(self.high / self.low) / most)
        decades = [value for value in self._products((1.0,)) if self.low <= value <= self.high]
        return decades[:: max(every, 1)] if len(decades) > 2 else []

    def _products(self, factors: tuple[float, ...]) -> Iterator[float]:
        for power in range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1):
            for factor in factors:
                yield float(f"{factor * 10.0**power:.6g}")


def round_up(value: float) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that is not below a positive value."""
    power = 10.0 ** math.floor(math.log10(value))
    # A hair of tolerance: 0.3 / 3 is to be rounded to 0.1.
    factor = next(factor for factor in _ROUND if factor * power >= value * (1 - 1e-9))
    return float(f"{factor * power:.6g}")
