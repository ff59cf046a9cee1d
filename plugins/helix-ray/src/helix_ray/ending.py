"""Ctrl-C and SIGTERM at the driver end a run on the cluster as they do one here: with a checkpoint."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")
_POLL_S = 0.2


class EndedRunError(HelixError):
    """A run was asked to end before its last step, and left a checkpoint to go on from.

    Args:
        message: How far it came, and where the checkpoint is.
        exit_code: 128 and the number of the signal, as a shell would say it.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(f"{message}\ngo on with the same command and trainer.resume=true")
        self.exit_code = exit_code


def request_in(out: Path) -> Path:
    """Return the file that asks the workers of a run to end, in the directory that all of them see."""
    return out / ".end-requested"


def fit_until_asked(fit: Callable[[], T], request: Path) -> T:
    """Let a run go on in a thread of its own, so that a signal to this process becomes a request to it.

    A second Ctrl-C does not wait for its end.

    Args:
        fit: Runs it; Ray's own handler of Ctrl-C, which kills workers, is set up in the main thread alone.
        request: The file that is written for a signal; there is none before and after.
    """
    request.unlink(missing_ok=True)
    if threading.current_thread() is not threading.main_thread():
        return fit()
    executor = ThreadPoolExecutor(max_workers=1)
    try:
        with _requested_by_signals(request):
            running = executor.submit(fit)
            while True:
                try:  # a wait without end would let no handler run on some platforms
                    return running.result(timeout=_POLL_S)
                except TimeoutError:
                    if running.done():
                        raise
    finally:
        executor.shutdown(wait=False, cancel_futures=True)
        request.unlink(missing_ok=True)


@contextmanager
def heeding(request: Path, interrupt: Callable[[int], None]) -> Iterator[threading.Event]:
    """Tell a trainer, in the block, of a request to end; gives an event that is set when there was one."""
    heard, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(_POLL_S):
            if (signum := _read(request)) is not None:
                heard.set()
                interrupt(signum)
                return

    watcher = threading.Thread(target=watch, name="helix-end-requests", daemon=True)
    watcher.start()
    try:
        yield heard
    finally:
        over.set()
        watcher.join()


@contextmanager
def _requested_by_signals(request: Path) -> Iterator[None]:
    def ask(signum: int, _frame: Any) -> None:
        if request.exists() and signum == signal.SIGINT:
            raise KeyboardInterrupt
        request.parent.mkdir(parents=True, exist_ok=True)
        request.write_text(str(signum), encoding="ascii")

    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(request: Path) -> int | None:
    """Return the signal that a request tells, or None where there is none, or not all of it yet."""
    try:
        return int(request.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
