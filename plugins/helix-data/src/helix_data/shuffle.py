"""A shuffle that is computed for one place at a time, and so costs no memory and no set-up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_N_ROUNDS = 6
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def philox_words(seed: int, stream: int, count: int) -> NDArray[np.uint64]:
    """Return random 64-bit words that depend on nothing but the arguments.

    The words come from the counter-based generator Philox4x64-10 (Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3", section 3.3), as raw output: NumPy promises that this stays
    the same in every version, which it does not for `Generator.integers`.

    Args:
        seed: Key of the generator, 0 to 2**64 - 1.
        stream: Which of the key's independent streams, 0 to 2**64 - 1.
        count: Number of words.
    """
    # A list of Python integers would go through float64 where one of them exceeds 2**63.
    key, counter = np.array([seed, 0], np.uint64), np.array([0, stream, 0, 0], np.uint64)
    bits = np.random.Philox(key=key, counter=counter)
    return np.asarray(bits.random_raw(count), dtype=np.uint64)


class Shuffle:
    """A pseudo-random permutation of 0 … n - 1 that can be asked for any place in O(1).

    It is the generalised Feistel cipher of Black & Rogaway 2002 ("Ciphers with arbitrary finite
    domains", section 5): a number is split as x = left + a·right with a·b >= n, the halves are
    stirred in turn, left modulo a and right modulo b, and a result that falls outside 0 … n - 1 is
    enciphered again until it falls inside (their section 4, "cycle walking").

    Args:
        n: Size of the domain, at least 1.
        seed: Key, 0 to 2**64 - 1.
        stream: Which of the key's permutations, for instance the epoch.
    """

    def __init__(self, n: int, *, seed: int, stream: int) -> None:
        a = math.isqrt(n - 1) + 1
        self._n = np.uint64(n)
        self._a, self._b = np.uint64(a), np.uint64(-(-n // a))
        self._keys = philox_words(seed, stream, _N_ROUNDS).reshape(-1, 2)

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what stands at the places.

        Args:
            places: (K,) int64, each in 0 … n - 1.

        Returns:
            (K,) int64, each in 0 … n - 1; different for different places.
        """
        values = self._encipher(places.astype(np.uint64))
        while (outside := values >= self._n).any():
            values[outside] = self._encipher(values[outside])
        return values.astype(np.int64)

    def _encipher(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        a, b = self._a, self._b
        left, right = values % a, values // a
        for even, odd in self._keys:
            left = (left + _mix(right, even)) % a
            right = (right + _mix(left, odd)) % b
        return left + a * right


def _mix(values: NDArray[np.uint64], key: np.uint64) -> NDArray[np.uint64]:
    """Hash each value under a key to 32 bits, so that adding to one cannot overflow.

    The multipliers are those of SplitMix64's finaliser (Steele et al. 2014, figure 13).
    """
    mixed = (values ^ key) * _MULTIPLIERS[0]
    mixed = (mixed ^ (mixed >> _HALF)) * _MULTIPLIERS[1]
    return mixed >> _HALF
