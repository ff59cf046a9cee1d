"""Tier M2 over keys of symbols: keys are sketched as vectors, and what lasts is found."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch

from helix_kernel.memory import Retrieved
from helix_topo.ledger import THRESHOLDS
from helix_topo.links import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from helix_topo.links import Link
    from helix_topo.stable_cores import StableCores

SKETCH = 256
"""Numbers of a sketch."""


def sketch(keys: Tensor) -> Tensor:
    """Return vectors (N, 256) float32 of keys (N, d_key) uint8, as alike as keys have equal places.

    A vector is the sum of random signs of each place with its symbol (Kanerva, "Hyperdimensional Computing",
    2009).
    """
    places = 256 * torch.arange(keys.shape[1]) + keys.cpu().long()
    distinct, row = np.unique(places.numpy(), return_inverse=True)
    return _signs(distinct)[torch.from_numpy(row).reshape(places.shape)].sum(1)


@attrs.frozen(eq=False)
class SymbolCores:
    """Stable cores as a tier of values by keys of symbols.

    Args:
        cores: Of keys of 256 numbers.
    """

    cores: StableCores

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> None:
        """Remember values by keys; those that recur become one, and last."""
        self.cores.write(sketch(keys), values, time=time)

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find, of the entries that last, those whose keys are most like each query; scores are cosines."""
        found = self.cores.read(sketch(queries), self.cores.capacity)
        rows = self.cores.rows
        lasts = torch.isin(found.ids, rows.ids[rows.half_life >= self.cores.stable_from]) & (found.ids >= 0)
        first = (
            (~lasts).byte().argsort(dim=1, stable=True)[:, :k]
        )  # those that last, the likest before others
        kept = lasts.gather(1, first)
        values = found.values.gather(1, first[..., None].expand(-1, -1, self.cores.d_value))
        return Retrieved(
            values=values * kept[..., None],
            scores=found.scores.gather(1, first).masked_fill(~kept, -math.inf),
            ids=found.ids.gather(1, first).masked_fill(~kept, -1),
        )

    def link(self, entry: int) -> Link:
        """Return the class of an entry by its half-life."""
        half_life = float(self.cores.rows.half_life[self._row(entry)])
        return CLASSES[int(np.searchsorted(THRESHOLDS, half_life, side="right"))]

    def why(self, entry: int, score: float) -> str:
        """Put a find into words."""
        weight = int(self.cores.rows.weights[self._row(entry)])
        return f"what lasts: {weight} writings became this, whose key is like the query by {score:.3g}"

    def _row(self, entry: int) -> int:
        return int((self.cores.rows.ids == entry).nonzero()[0])


def _signs(numbers: NDArray[np.int64]) -> Tensor:
    """Return 256 signs for each number (n,), by the mixing function of SplitMix64 (Steele et al. 2014)."""
    seeds = numbers.astype(np.uint64)[:, None] * np.uint64(4) + np.arange(1, 5, dtype=np.uint64)
    mixed = np.asarray(seeds * np.uint64(0x9E3779B97F4A7C15), dtype=np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed = mixed ^ (mixed >> np.uint64(31))
    bits = np.unpackbits(mixed.astype("<u8").view(np.uint8).reshape(len(numbers), 32), axis=1)
    return torch.from_numpy(bits.astype(np.float32) * 2 - 1)
