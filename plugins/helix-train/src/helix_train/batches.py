"""Hands the trainer its micro-batches in order, and counts how long it waits for them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.randomness import batch_of

if TYPE_CHECKING:
    from helix_kernel import Config


class Batches:
    """The micro-batches of a run, in the order of their numbers.

    They come from the config's loader. Where no plugin brings one, each is made when it is asked for.

    Args:
        config: The whole config.
        dataset: Makes the batches.
        seed: Decides what they hold.
        rank: Which share of a global batch is made.
        world_size: How many shares there are.

    Attributes:
        rows: Examples taken from the endless sequence of data, over all ranks.
        reseeds: How often the run has taken up another sequence.
        waited: Seconds spent in `next`.
    """

    def __init__(
        self, config: Config, dataset: Any, *, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.rows = self.reseeds = 0
        self.waited = 0.0
        self._config = config
        self._dataset = dataset
        self._seed = seed
        self._rank, self._world_size = rank, world_size
        self._source: Any = None

    @property
    def rows_of_batch(self) -> int:
        """Examples in a micro-batch, over all ranks."""
        n_rows: int = self._dataset.batch_size * self._world_size
        return n_rows

    @property
    def seed(self) -> int:
        """Seed of the sequence that batches are taken from: the run's own until it is reseeded."""
        if not self.reseeds:
            return self._seed
        return int(np.random.SeedSequence([self._seed, self.reseeds]).generate_state(1, np.uint64)[0])

    def open(self, rows: int, reseeds: int, *, count: int) -> None:
        """Let the next batch be the first whose rows all come after the first `rows`.

        Args:
            rows: Examples taken before, of batches of whatever size.
            reseeds: How often the run has taken up another sequence.
            count: How many batches may be asked for.
        """
        self.close()
        self.reseeds = reseeds
        first = -(-rows // self.rows_of_batch)
        self.rows = first * self.rows_of_batch
        loader = self._loader()
        last = first + count
        self._source = loader.batches(first, last) if loader else map(self._made, range(first, last))

    def next(self) -> Any:
        """Return the next batch."""
        begun = time.perf_counter()
        batch = next(self._source)
        self.waited += time.perf_counter() - begun
        self.rows += self.rows_of_batch
        return batch

    def ahead(self, count: int) -> Any:
        """Return the batch that comes after `count` others, and leave the next one what it is."""
        return self._made(self.rows // self.rows_of_batch + count)

    def close(self) -> None:
        """Stop whatever works ahead."""
        if hasattr(self._source, "close"):
            self._source.close()
        self._source = None

    def _loader(self) -> Any:
        kind = self._config.kernel.registry.sections.get("loader")
        if kind is None:
            return None
        table: Any = self._config.sections.get("loader", {"use": kind.default})
        return self._config.kernel.build(
            "loader",
            table,
            dataset=self._dataset,
            seed=self.seed,
            rank=self._rank,
            world_size=self._world_size,
        )

    def _made(self, number: int) -> Any:
        return batch_of(
            self._dataset, seed=self.seed, step=number, rank=self._rank, world_size=self._world_size
        )
