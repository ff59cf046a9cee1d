"""The loader `prefetch`: batches in order, made when asked for or ahead by processes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from helix_data.config import check_at_least
from helix_data.loading.packing import pack, places, unpack
from helix_data.loading.worker import Share
from helix_data.loading.worker_process import WorkerProcess, end_all
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Room that a batch may need beyond what the first one does, where their sizes differ.
_SLACK = 1.25


class Prefetch:
    """Hands out batches in order, the same to the bit whatever the number of workers.

    Each is drawn under `helix_kernel.randomness.drawing_for`. Worker w of n makes every n-th batch. It is
    told to make another one only when one of its own was taken, so that never more than
    ``workers · prefetch`` batches are made or being made beyond the one handed out.

    Args:
        dataset: Has ``batch(*, seed, step)`` and, for several ranks, ``rank`` and ``world_size``. With
            workers it can be pickled.
        seed: Of the order of the examples.
        rank: Which share of a global batch is made.
        world_size: How many shares there are.
        workers: Processes that make batches ahead; 0: each is made when it is asked for.
        prefetch: Batches that each worker may be ahead, at least 1.
        timeout: Seconds to wait for a batch of a worker; 0: as long as the worker lives.
        pin_memory: Put batches into page-locked memory.

    Raises:
        ArgumentError: An argument is out of range, or there is no GPU to lock pages for.
    """

    def __init__(
        self,
        *,
        dataset: Any,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        prefetch: int = 2,
        timeout: float = 0.0,
        pin_memory: bool = False,
    ) -> None:
        check_at_least("loader.workers", workers, 0)
        check_at_least("loader.prefetch", prefetch, 1)
        if not timeout >= 0:
            raise ArgumentError(f"loader.timeout is {timeout!r}, allowed is >= 0")
        if pin_memory and not torch.cuda.is_available():
            raise ArgumentError("loader.pin_memory is true, but torch sees no GPU; leave it false")
        self._share = Share(dataset=dataset, seed=seed, rank=rank, world_size=world_size)
        self.workers = workers
        self.prefetch = prefetch
        self.timeout = timeout
        self.pin_memory = pin_memory

    def batches(self, first: int, last: int) -> Iterator[Any]:
        """Yield the batches of the steps ``first`` to ``last - 1``.

        Workers begin with the first one and end with the last, or when the iterator is closed.

        Raises:
            ArgumentError: The dataset cannot be sent to workers.
            DataError: A worker says that what the user gave is wrong.
            HelixError: A worker failed otherwise, has ended, or took too long.
        """
        steps = range(first, last)
        # The first is made here: it says how much memory a batch takes.
        for step in steps[: 1 if self.workers else len(steps)]:
            batch = self._made_here(step)
            yield self._pinned(batch) if self.pin_memory else batch
        if self.workers and len(steps) > 1:
            yield from self._made_ahead(steps[1:], slot_size=_room(batch))

    def _made_here(self, step: int) -> Any:
        try:
            return self._share.batch(step)
        except Exception as error:
            error.add_note(f"while making batch {step}")
            raise

    def _made_ahead(self, steps: range, *, slot_size: int) -> Iterator[Any]:
        workers: list[WorkerProcess] = []
        n_workers = min(self.workers, len(steps))
        n_ahead = n_workers * self.prefetch
        try:
            for number in range(n_workers):
                worker = WorkerProcess(self._share, n_slots=self.prefetch, slot_size=slot_size)
                workers.append(worker)
                for slot, step in enumerate(steps[number:n_ahead:n_workers]):
                    worker.ask(step, slot)
            for number, step in enumerate(steps):
                worker, slot = workers[number % n_workers], number // n_workers % self.prefetch
                batch = worker.take(step, slot, timeout=self.timeout, pin_memory=self.pin_memory)
                if number + n_ahead < len(steps):
                    worker.ask(steps[number + n_ahead], slot)
                yield batch
        finally:
            end_all(workers)

    def _pinned(self, batch: Any) -> Any:
        packed = pack(batch)
        spans, size = places(packed.sizes)
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=True).numpy()
        for span, buffer in zip(spans, packed.buffers, strict=True):
            memory[span] = buffer
        return unpack(packed.structure, [memory[span] for span in spans])


def _room(batch: Any) -> int:
    return math.ceil(places(pack(batch).sizes)[1] * _SLACK)
