"""What a worker does: it makes the batches that it is told to, until nobody listens any more."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import attrs
import torch

from helix_data.loading.packing import Packed, pack, places
from helix_kernel.errors import InputError
from helix_kernel.randomness import batch_of

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


@attrs.frozen(kw_only=True)
class Share:
    """Which batches of a dataset are made.

    Args:
        dataset: Makes them.
        seed: Of the order of the examples.
        rank: Which share of a global batch.
        world_size: How many shares there are.
    """

    dataset: Any
    seed: int
    rank: int = 0
    world_size: int = 1

    def batch(self, step: int) -> Any:
        """Return the batch of a step."""
        return batch_of(self.dataset, seed=self.seed, step=step, rank=self.rank, world_size=self.world_size)


@attrs.frozen
class Job:
    """What the trainer asks for: the batch of a step, and where to leave it."""

    step: int
    slot: int


@attrs.frozen
class Made:
    """A batch without the memory of its tensors, which lies in the slot or follows in the pipe."""

    structure: bytes
    sizes: list[int]
    in_slot: bool


@attrs.frozen
class Failed:
    """Why there is no batch.

    Args:
        error: Type and message of what was raised.
        traceback: Where.
        bad_input: Whether what the user gave is to blame.
    """

    error: str
    traceback: str
    bad_input: bool


def work(share: Share, connection: Connection, slots: torch.Tensor) -> None:
    """Make batches until the trainer closes the connection or is gone.

    Args:
        share: Makes them.
        connection: Brings each `Job`, and takes a `Made` or `Failed` for it, in the same order.
        slots: (prefetch, bytes) uint8 in shared memory.
    """
    # Ctrl-C reaches every process of a terminal, and what happens then is the trainer's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    try:
        while job := _next_job(connection):
            _answer(share, job, connection, slots)
    except (EOFError, ConnectionError):
        return


def _next_job(connection: Connection) -> Job | None:
    """Return the next job, or None when the trainer has died."""
    parent = multiprocessing.parent_process()
    ready = wait([connection] if parent is None else [connection, parent.sentinel])
    job: Job | None = connection.recv() if connection in ready else None
    return job


def _answer(share: Share, job: Job, connection: Connection, slots: torch.Tensor) -> None:
    try:
        packed = pack(share.batch(job.step))
    except Exception as error:  # noqa: BLE001 - whatever a dataset raises is the trainer's to report
        connection.send(_failure(error))
        return
    in_slot = _put(packed, slots[job.slot])
    connection.send(Made(packed.structure, packed.sizes, in_slot))
    if not in_slot:
        for buffer in packed.buffers:
            connection.send_bytes(buffer)


def _put(packed: Packed, slot: torch.Tensor) -> bool:
    """Copy a batch's memory into a slot, if it has room."""
    spans, end = places(packed.sizes)
    if end > len(slot):
        return False
    memory = slot.numpy().data
    for span, buffer in zip(spans, packed.buffers, strict=True):
        memory[span] = buffer
    return True


def _failure(error: Exception) -> Failed:
    what = f"{type(error).__name__}: {error}"
    return Failed(what, "".join(traceback.format_exception(error)), isinstance(error, InputError))
