"""Which part each row of a mixture comes from: exact shares in every block, in a shuffled order."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from helix_data.shuffle import Shuffle
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# Keeps the words that shuffle blocks apart from those that shuffle the parts' own windows.
_STREAM = 5 << 60
# Blocks are so long where the weights allow it, and at most so long: see `slots_of`.
_LEAST, _MOST = 64, 4096


class Slots:
    """An endless sequence of the numbers of parts, of which any stretch is known at once.

    It is made of blocks of N slots. Each block gives every part the same number of slots, in an order of
    its own; so N rows that begin at a block have exactly those shares, and how many rows a part has before
    a row is a product and the count of one block's beginning.

    Args:
        counts: Slots of each part in a block, none of them negative, together at least 1.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = np.array(counts, dtype=np.int64)
        self._parts = np.repeat(np.arange(len(counts)), self._counts)
        self._block = lru_cache(maxsize=8)(self._shuffled)

    def __reduce__(self) -> tuple[type[Slots], tuple[list[int]]]:
        # What is kept of blocks is drawn again in another process.
        return Slots, (self._counts.tolist(),)

    def __len__(self) -> int:
        return len(self._parts)

    def parts(self, first: int, count: int, *, seed: int) -> NDArray[np.int64]:
        """Return the part of each of rows ``first`` to ``first + count``, (count,) int64."""
        found = []
        while count:
            block, place = divmod(first, len(self))
            here = self._block(seed, block)[place : place + count]
            found.append(here)
            first, count = first + len(here), count - len(here)
        return np.concatenate([np.empty(0, np.int64), *found])

    def before(self, row: int, *, seed: int) -> list[int]:
        """Return how many rows of each part lie before a row, in time that does not grow with the row."""
        block, place = divmod(row, len(self))
        begun = np.bincount(self._block(seed, block)[:place], minlength=len(self._counts))
        return [block * each + here for each, here in zip(self._counts.tolist(), begun.tolist(), strict=True)]

    def _shuffled(self, seed: int, block: int) -> NDArray[np.int64]:
        order = Shuffle(len(self), seed=seed, stream=_STREAM + block)
        return self._parts[order(np.arange(len(self)))]


def slots_of(weights: Mapping[str, float]) -> dict[str, int]:
    """Return how many slots of a block each part has, by weights that are read as decimal numbers.

    The shares are exact where 4096 slots can express them, as 0.7 and 0.3 are by 7 and 3 of 10, which
    are repeated until a block has 64. Otherwise they are rounded to 4096 slots, by largest remainders, and
    every part of a weight above 0 has one at least.

    Raises:
        ArgumentError: A weight is negative or no finite number, or all are 0.
    """
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ArgumentError(f"weights.{name} is {weight!r}, allowed is a finite number >= 0")
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    total = sum(exact.values())
    if not total:
        raise ArgumentError("weights: all are 0; give at least one part a weight above 0")
    shares = {name: weight / total for name, weight in exact.items()}
    size = math.lcm(*(share.denominator for share in shares.values()))
    if size > _MOST:
        return _rounded(shares)
    size *= -(-_LEAST // size)
    return {name: int(share * size) for name, share in shares.items()}


def _rounded(shares: Mapping[str, Fraction]) -> dict[str, int]:
    counts = {name: max(int(share * _MOST), 1 if share else 0) for name, share in shares.items()}
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name] * _MOST)
    # What is missing goes to the largest remainders; what parts of one slot took comes from the largest.
    for name in by_remainder[: max(0, _MOST - sum(counts.values()))]:
        counts[name] += 1
    counts[max(counts, key=lambda name: counts[name])] += _MOST - sum(counts.values())
    return counts
