"""The trainer's side of a worker: starts it, asks it for batches, takes them, and ends it."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import time
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

import torch

from helix_data.loading.packing import places, unpack
from helix_data.loading.worker import Failed, Job, Made, work
from helix_kernel.errors import ArgumentError, DataError, HelixError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.context import BaseContext

    from helix_data.loading.worker import Share

# What a worker has to end by itself once nobody listens, before it is made to.
_GRACE_SECONDS = 1.0


class WorkerProcess:
    """A process that makes batches ahead, in as many places of shared memory as it may make ahead.

    It is forked from a server that has imported torch and has no threads (where the platform knows none, it
    is a new interpreter): a fork of the trainer itself would inherit locks that its threads hold.

    Args:
        share: What it makes; is pickled.
        n_slots: Batches that it may be ahead.
        slot_size: Bytes of a batch that shared memory has room for; a larger one goes through the pipe.

    Raises:
        ArgumentError: The dataset cannot be pickled.
        HelixError: There is not enough shared memory.
    """

    def __init__(self, share: Share, *, n_slots: int, slot_size: int) -> None:
        context = _context()
        self._slots = _shared_memory(n_slots, slot_size)
        self._connection, theirs = context.Pipe()
        self._process: Any = context.Process(  # type: ignore[attr-defined]
            target=work, args=(share, theirs, self._slots), daemon=True, name="helix-loader"
        )
        try:
            with _without_interrupts():
                self._process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            self._connection.close()
            raise ArgumentError(
                f"loader.workers needs a dataset that can be sent to another process, and "
                f"{type(share.dataset).__name__} cannot: {error}; give it __getstate__, or set "
                "loader.workers=0"
            ) from error
        finally:
            theirs.close()

    def ask(self, step: int, slot: int) -> None:
        """Ask for the batch of a step; whatever was in the slot has been taken."""
        # A worker that has ended is noticed where its batch is missing.
        with suppress(ConnectionError):
            self._connection.send(Job(step, slot))

    def take(self, step: int, slot: int, *, timeout: float, pin_memory: bool) -> Any:
        """Return the batch that was asked for first.

        Args:
            step: Its step.
            slot: Where it was to be left.
            timeout: Seconds to wait for it; 0: as long as the worker lives.
            pin_memory: Whether it comes in page-locked memory.

        Raises:
            DataError: The dataset says that what the user gave is wrong.
            HelixError: The worker failed otherwise, has ended, or took too long.
        """
        answer = self._answer(step, timeout)
        if isinstance(answer, Failed):
            kind = DataError if answer.bad_input else HelixError
            raise kind(f"batch {step}: {answer.error}") from _InWorkerError(answer.traceback)
        spans, size = places(answer.sizes)
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=pin_memory)
        if answer.in_slot:
            memory.copy_(self._slots[slot, :size])
        bytes_of = memory.numpy()
        buffers = [bytes_of[span] for span in spans]
        if not answer.in_slot:
            for buffer in buffers:
                self._receive_into(buffer, step)
        return unpack(answer.structure, buffers)

    def close(self) -> None:
        """Let the worker end when it has made what it is making; see `join`."""
        self._connection.close()

    def join(self, deadline: float) -> None:
        """Wait until the worker has ended, and kill it if it has not by a time of `time.monotonic`."""
        self._process.join(max(0.0, deadline - time.monotonic()))
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process.close()

    def _answer(self, step: int, timeout: float) -> Made | Failed:
        ready = wait([self._connection, self._process.sentinel], timeout or None)
        if not ready:
            raise HelixError(
                f"batch {step}: its worker has not made it within loader.timeout={timeout:g} seconds; raise "
                "that, or see with loader.workers=0 what takes so long"
            )
        try:
            answer: Made | Failed = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._ended(step) from error
        return answer

    def _receive_into(self, buffer: Any, step: int) -> None:
        try:
            if len(buffer):
                self._connection.recv_bytes_into(buffer)
            else:
                self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._ended(step) from error

    def _ended(self, step: int) -> HelixError:
        self._process.join()
        code = self._process.exitcode
        how = (
            f"was killed by {signal.Signals(-code).name}"
            if code and code < 0
            else f"ended with exit code {code}"
        )
        return HelixError(
            f"batch {step}: the process that was making it {how}. SIGKILL mostly means too little memory: "
            "lower loader.workers or loader.prefetch. A script of yours must train below "
            "if __name__ == '__main__'"
        )


def end_all(workers: list[WorkerProcess]) -> None:
    """End workers, all at the same time."""
    for worker in workers:
        worker.close()
    deadline = time.monotonic() + _GRACE_SECONDS
    for worker in workers:
        worker.join(deadline)


class _InWorkerError(Exception):
    """Shows where in the worker an error came from."""

    def __str__(self) -> str:
        return f"in a worker of the loader:\n\n{self.args[0]}"


def _context() -> BaseContext:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["helix_data.loading.worker"])
    return context


def _shared_memory(n_slots: int, slot_size: int) -> torch.Tensor:
    memory = torch.empty((n_slots, slot_size), dtype=torch.uint8)
    try:
        return memory.share_memory_()  # type: ignore[no-untyped-call, no-any-return]
    except RuntimeError as error:
        raise HelixError(
            f"there is no shared memory for {n_slots} batches of {slot_size:,} bytes: {error}; give /dev/shm "
            "more room, lower loader.prefetch or loader.workers, or set loader.workers=0"
        ) from error


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back, here and for good in the processes that are started meanwhile."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # Python's own helper process, when it is started, lets Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
