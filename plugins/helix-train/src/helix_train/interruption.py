"""Turns SIGTERM and Ctrl-C into a request that the loop sees between two steps."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Iterator


class InterruptedRunError(HelixError):
    """A run was asked to end before its last step, and left a checkpoint to go on from.

    Args:
        message: What happened, and where the checkpoint is.
        signum: The signal, which decides the exit code as a shell would: 128 + its number.
    """

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


class Interruption:
    """The signal that asked a run to end; 0 for none so far."""

    def __init__(self) -> None:
        self.signum = 0

    def __call__(self, signum: int, _frame: Any) -> None:
        """Take a signal; the second Ctrl-C does not wait for the step's end."""
        if self.signum and signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum


@contextmanager
def noticed_interruption(interruption: Interruption) -> Iterator[None]:
    """Catch SIGTERM and SIGINT within the block, and put the handlers back after it.

    Only a process's main thread can; elsewhere nothing is caught.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interruption) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
