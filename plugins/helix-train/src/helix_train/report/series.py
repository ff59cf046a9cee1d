"""A number over the steps of a run: taken from records, smoothed, and thinned out for drawing."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

_SMOOTHED = 30
"""A smoothed curve averages over one in so many of its points."""

_NUMBERS = frozenset({int, float})  # and not bool, which is an int too

_LARGEST = 1e30
"""No axis is drawn to what lies beyond."""


@attrs.frozen(eq=False)
class Series:
    """Finite numbers by step.

    Args:
        steps: (N,) float64, ascending.
        values: (N,) float64.
        n_left_out: How many more there were that are not finite, or too large to draw.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]
    n_left_out: int = 0

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], key: str) -> Series:
        """Return the numbers that records have under a key; what is no number is passed over."""
        pairs = [(r["step"], r[key]) for r in records if type(r.get(key)) in _NUMBERS]
        try:
            array = np.array(pairs, dtype=np.float64).reshape(-1, 2)
        except OverflowError:  # JSON has whole numbers of any size
            array = np.array([[*map(_as_float, pair)] for pair in pairs])
        array = array[np.argsort(array[:, 0], kind="stable")]
        finite = (np.abs(array) <= _LARGEST).all(axis=1)
        return cls(array[finite, 0], array[finite, 1], int((~finite).sum()))

    def __len__(self) -> int:
        return len(self.steps)

    def smoothed(self) -> Series:
        """Return means over as many points before as after, fewer towards the ends, so that nothing lags."""
        half = len(self) // (2 * _SMOOTHED)
        sums = np.concatenate([[0.0], np.cumsum(self.values)])
        at = np.arange(len(self))
        reach = np.minimum(half, np.minimum(at, len(self) - 1 - at))
        return attrs.evolve(self, values=(sums[at + reach + 1] - sums[at - reach]) / (2 * reach + 1))

    def thinned(self, buckets: int) -> Series:
        """Return at most two points a bucket, its least and its greatest, so that no spike is lost."""
        if len(self) <= 2 * buckets:
            return self
        edges = np.linspace(0, len(self), buckets + 1).astype(int)
        kept = {0, len(self) - 1}
        for low, high in pairwise(edges):
            part = self.values[low:high]
            kept |= {int(low + part.argmin()), int(low + part.argmax())}
        chosen = sorted(kept)
        return attrs.evolve(self, steps=self.steps[chosen], values=self.values[chosen])


def _as_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return np.inf
