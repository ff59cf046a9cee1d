"""Shows how a run gets on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

import attrs

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


@attrs.frozen
class Update:
    """What is known after a step.

    Args:
        step: Steps done.
        loss: Mean loss of the step's batch.
        bits_per_byte: The loss in bits, where it is one of predicted bytes.
        tokens_per_second: Speed since the last update.
    """

    step: int
    loss: float
    bits_per_byte: float | None
    tokens_per_second: float

    def __str__(self) -> str:
        bits = "" if self.bits_per_byte is None else f"  {self.bits_per_byte:.3f} bits/byte"
        return f"loss {self.loss:.4f}{bits}  {self.tokens_per_second:,.0f} tokens/s"


class Progress:
    """Progress of one run.

    Args:
        stream: Where it is shown; standard error if left out, so that results can be piped.
        every: Least seconds between plain lines.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every = every
        self._live = _live(self._stream) if self._stream.isatty() else None
        self._first = self._last = 0
        self._started, self._shown = 0.0, -math.inf

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def begin(self, *, step: int, steps: int) -> None:
        """Start the clock at `step` of `steps`."""
        self._first, self._last = step, steps
        self._started = time.monotonic()
        if self._live:
            self._live.add_task("training", total=steps, completed=step, status="")
            self._live.start()

    def update(self, update: Update) -> None:
        """Show where the run is."""
        if self._live:
            self._live.update(self._live.task_ids[0], completed=update.step, status=str(update))
            return
        now = time.monotonic()
        if now - self._shown >= self._every or update.step == self._last:
            self._shown = now
            self.note(f"step {update.step}/{self._last}  {update}  ETA {self._eta(update.step, now)}")

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._live:
            self._live.stop()

    def _eta(self, step: int, now: float) -> str:
        done = step - self._first
        seconds = (now - self._started) / done * (self._last - step) if done else 0.0
        return str(timedelta(seconds=round(seconds)))


def _live(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
