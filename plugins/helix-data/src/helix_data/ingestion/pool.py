"""Does tasks in processes of their own, and reports from all of them as they go."""

from __future__ import annotations

import signal
import traceback
from collections import deque
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from multiprocessing.connection import Connection

    from helix_data.ingestion.chunks import Advance, Job
    from helix_data.ingestion.journal import Task


def do_all(job: Job, tasks: Sequence[Task], workers: int) -> Generator[Advance, None, None]:
    """Do tasks, in this process for one worker; yield what is done as it is.

    Closing the iterator ends all work. Workers end when this process does, even when it is killed.

    Raises:
        HelixError: What a task raises; or a worker died.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            yield from job.do(task)
        return
    # A fresh interpreter each: a fork of a process that has threads may hang.
    context: Any = get_context("spawn")
    waiting = deque(tasks)
    processes = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, job), daemon=True)
            process.start()
            theirs.close()
            processes[ours] = process
            ours.send(waiting.popleft())
        yield from _reports(dict(processes), waiting)
    finally:
        for connection, process in processes.items():
            connection.close()
            process.terminate()
            process.join()


def _reports(busy: dict[Any, Any], waiting: deque[Task]) -> Generator[Advance, None, None]:
    while busy:
        ready: list[Any] = wait(list(busy))
        for connection in ready:
            message = _received(connection, busy[connection])
            if message is not None:
                yield message
            elif waiting:
                connection.send(waiting.popleft())
            else:
                del busy[connection]


def _received(connection: Any, process: Any) -> Advance | None:
    """Return what a worker did, or None where it has done its task."""
    try:
        message: Advance | Exception | None = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise HelixError(
            f"a worker died (exit code {process.exitcode}; -9 mostly means that memory ran out); what is "
            "finished is kept: run the same again to go on, perhaps with fewer --workers"
        ) from None
    if isinstance(message, Exception):
        raise message
    return message


def _serve(connection: Connection, job: Job) -> None:
    """Do the tasks that come, until none can come any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    try:
        while True:
            task = connection.recv()
            try:
                for advance in job.do(task):
                    connection.send(advance)
            except HelixError as error:
                connection.send(error)
            except Exception:  # noqa: BLE001 - whatever it is, the parent reports it
                connection.send(HelixError(f"a worker failed:\n{traceback.format_exc()}"))
            connection.send(None)
    except (EOFError, ConnectionError):  # the parent has gone
        return
