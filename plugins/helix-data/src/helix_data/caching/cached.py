"""The dataset `cached`: another one, whose decoded samples or batches are kept on disk."""

from __future__ import annotations

import hashlib
import json
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from helix_data.caching.store import Counts, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helix_kernel import Factory


class Cached:
    """Another dataset, which decodes nothing twice as long as the cache has room.

    What is kept depends on what the dataset offers:

    - With ``rows(*, seed, step, rank, world_size)``, which returns the numbers of a batch's samples,
      ``decode(row)``, a function of the row alone, and ``collate(samples)``: each sample, by its row. Every
      epoch after the first finds them all, whatever the seed. What is random belongs into ``collate``.
    - Otherwise: each batch, by seed, step, rank and number of ranks. As the order of a dataset is its own,
      nothing smaller can be kept without its help; other epochs find nothing, but other runs of the seed do.

    The batches of ``evaluation_batches()`` are kept too. Everything belongs to the dataset's options, the
    version of its distribution, and its fingerprint: with others nothing of it is found.

    A cache is to be trusted as far as its checksums go: who may write to it can change what is trained on.

    Args:
        data: Builds the dataset.
        path: The folder of the cache; several runs, workers and datasets may share it.
        max_bytes: What the cache may take, see `helix_data.caching.store.Store`.
    """

    def __init__(self, *, data: Factory, path: str, max_bytes: int = 10 * 2**30) -> None:
        self.dataset = data()
        self._store = Store(path, max_bytes=max_bytes)
        self._name = [data.resolved.to_table(), data.component.version, self.dataset.fingerprint]

    @property
    def counts(self) -> Counts:
        """What became of what was asked for, in this process."""
        return self._store.counts

    def describe(self) -> str:
        """Return one line for people: where the cache is, and what the dataset says of itself."""
        return f"{self.dataset.describe()}; cached in {self._store.path}"

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Any:
        """Return a rank's share of the batch of a step, as the dataset makes it."""
        place = {"seed": seed, "step": step}
        if (rank, world_size) != (0, 1):
            place |= {"rank": rank, "world_size": world_size}
        if not hasattr(self.dataset, "decode"):
            return self._kept(["batch", seed, step, rank, world_size], lambda: self.dataset.batch(**place))
        return self.dataset.collate([self._sample(row) for row in self.dataset.rows(**place)])

    @property
    def evaluation_batches(self) -> Callable[[], Iterator[Any]]:
        """Yields the batches to be measured on, where the dataset has some."""
        make = self.dataset.evaluation_batches
        return lambda: self._evaluation_batches(make)

    def __getattr__(self, name: str) -> Any:
        # Until it is set, as when a copy is unpickled, `dataset` must not look for itself.
        if name.startswith("_") or name == "dataset":
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def _evaluation_batches(self, make: Callable[[], Iterator[Any]]) -> Iterator[Any]:
        n_batches, n_kept = self._store.get(self._key(["evaluation"])), 0
        kept = map(self._store.get, map(self._evaluation_key, range(n_batches or 0)))
        for batch in takewhile(_is_there, kept):
            yield batch
            n_kept += 1
        if n_kept == n_batches:
            return
        number = n_kept
        for batch in islice(make(), n_kept, None):
            self._store.put(self._evaluation_key(number), batch)
            yield batch
            number += 1
        self._store.put(self._key(["evaluation"]), number)

    def _evaluation_key(self, number: int) -> str:
        return self._key(["evaluation", number])

    def _sample(self, row: Any) -> Any:
        return self._kept(["sample", int(row)], lambda: self.dataset.decode(row))

    def _kept(self, name: list[Any], make: Callable[[], Any]) -> Any:
        key = self._key(name)
        value = self._store.get(key)
        if value is None:
            value = make()
            self._store.put(key, value)
        return value

    def _key(self, name: list[Any]) -> str:
        whole = json.dumps([*self._name, *name], sort_keys=True, default=str)
        return hashlib.blake2b(whole.encode(), digest_size=20).hexdigest()


def _is_there(value: Any) -> bool:
    return value is not None
