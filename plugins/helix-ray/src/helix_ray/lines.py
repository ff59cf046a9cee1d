"""Progress of a run that nobody watches on a terminal of its own, as plain lines."""

from __future__ import annotations

import math
import time
from typing import Any, TextIO


class Lines:
    """Writes what a trainer tells of its run.

    Args:
        stream: Where to.
        every: Least seconds between two lines about steps.
    """

    def __init__(self, stream: TextIO, *, every: float = 5.0) -> None:
        self._stream = stream
        self._every = every
        self._steps = 0
        self._shown = -math.inf

    def note(self, text: str) -> None:
        """Write a line."""
        self._stream.write(f"{text}\n")  # not print, of which Ray Train tells its log as well
        self._stream.flush()

    def begin(self, *, step: int, steps: int) -> None:  # noqa: ARG002 - the trainer tells both
        """Hear how many steps there are in all."""
        self._steps = steps

    def update(self, update: Any) -> None:
        """Write where the run is, unless it was written just now."""
        now = time.monotonic()
        if now - self._shown >= self._every or update.step == self._steps:
            self._shown = now
            self.note(f"step {update.step}/{self._steps}  {update}")

    def validating(self, done: int, total: int | None) -> None:
        """Write how far a validation is, unless something was written just now."""
        now = time.monotonic()
        if now - self._shown >= self._every:
            self._shown = now
            of = "" if total is None else f" of {total}"
            self.note(f"measuring what is held out: {done}{of} batches")

    def evaluated(self, step: int, text: str) -> None:
        """Write what was found on held-out data."""
        self.note(f"step {step}: {text}")

    def close(self) -> None:
        """End; nothing is left open."""
