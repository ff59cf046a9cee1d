"""Shows how a run gets on: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from datetime import timedelta
from typing import TYPE_CHECKING, TextIO

import attrs

if TYPE_CHECKING:
    from helix_train.live_display import LiveDisplay

_REMEMBERED = 16


@attrs.frozen
class Update:
    """What is known after a step.

    Args:
        step: Steps done.
        loss: Mean loss of the step's batch.
        bits_per_byte: The loss in bits, where it is one of predicted bytes.
        tokens_per_second: Speed since the last update.
        rate: Learning rate of the first parameter group.
        norm: Norm of the gradient before clipping.
        data_wait: Share of the time that passed in waiting for data.
        mfu: Share of the device's peak that the model's operations reach.
    """

    step: int
    loss: float
    bits_per_byte: float | None
    tokens_per_second: float
    rate: float | None = None
    norm: float | None = None
    data_wait: float | None = None
    mfu: float | None = None

    def __str__(self) -> str:
        return "  ".join(f"{name} {value}" if name else value for name, value in self.told())

    def told(self) -> list[tuple[str, str]]:
        """Return what is known as names and texts, the most wanted first; a name may be empty."""
        given = [
            ("loss", f"{self.loss:.4f}"),
            ("", _text(self.bits_per_byte, "{:.3f} bits/byte")),
            ("", f"{self.tokens_per_second:,.0f} tokens/s"),
            ("lr", _text(self.rate, "{:.2e}")),
            ("grad norm", _text(self.norm, "{:.3g}")),
            ("data wait", _text(self.data_wait, "{:.0%}")),
            ("mfu", _text(self.mfu, "{:.0%}")),
        ]
        return [(name, text) for name, text in given if text]


class Course:
    """How far a run has come, and since when."""

    def __init__(self) -> None:
        self.steps = self.step = self._first = 0
        self.update: Update | None = None
        self.held_out = self.validating = ""
        self.losses: deque[float] = deque(maxlen=_REMEMBERED)
        self._started: float | None = None

    def begin(self, *, step: int, steps: int) -> None:
        """Start the clock at `step` of `steps`."""
        self.step, self.steps, self._first = step, steps, step
        self._started = time.monotonic()

    def go_on(self, update: Update) -> None:
        """Take a step's update on; a run that went back is counted from there."""
        self._first = min(self._first, update.step)
        self.step, self.update = update.step, update
        self.losses.append(update.loss)

    @property
    def has_begun(self) -> bool:
        """Whether the clock runs."""
        return self._started is not None

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return 0.0 if self._started is None else time.monotonic() - self._started

    @property
    def left(self) -> float:
        """Seconds that the steps left will take, as long each as those done; NaN before the first."""
        done = self.step - self._first
        return self.elapsed / done * max(0, self.steps - self.step) if done else math.nan

    def summary(self) -> str:
        """Return in one line what the run came to."""
        done = self.step - self._first
        what = "done" if self.step >= self.steps else "stopped"
        pace = f", {_pace(self.elapsed / done)} a step" if done else ""
        loss = f"; loss {self.update.loss:.4f}" if self.update else ""
        held_out = f"; {self.held_out}" if self.held_out else ""
        return f"{what}: step {self.step}/{self.steps} after {clock(self.elapsed)}{pace}{loss}{held_out}"


class Progress:
    """Progress of one run.

    A terminal shows it live, in the colours that ``NO_COLOR`` leaves. Where the output is piped, or
    ``TERM=dumb``, plain lines do.

    Args:
        stream: Where it is shown; standard error if left out, so that results can be piped.
        every: Least seconds between plain lines.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every = every
        self._course = Course()
        self._live = _live(self._stream, self._course)
        self._shown = -math.inf

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._live:
            self._live.note(text)
        else:
            print(text, file=self._stream, flush=True)

    def begin(self, *, step: int, steps: int) -> None:
        """Start the clock at `step` of `steps`."""
        self._course.begin(step=step, steps=steps)
        if self._live:
            self._live.start()

    def update(self, update: Update) -> None:
        """Show where the run is."""
        self._course.go_on(update)
        if self._live:
            return
        now = time.monotonic()
        if now - self._shown >= self._every or update.step == self._course.steps:
            self._shown = now
            left = clock(self._course.left)
            self.note(f"step {update.step}/{self._course.steps}  {update}  ETA {left}")

    def validating(self, done: int, total: int | None) -> None:
        """Show how far a validation is.

        Args:
            done: Batches of what is held out that are measured.
            total: How many there are, if that is known.
        """
        of = "" if total is None else f" of {total}"
        self._course.validating = f"measuring what is held out: {done}{of} batches"
        now = time.monotonic()
        if not self._live and now - self._shown >= self._every:
            self._shown = now
            self.note(f"step {self._course.step}: {self._course.validating}")

    def evaluated(self, step: int, text: str) -> None:
        """Show what was found on held-out data, as a line that stays and beside what follows.

        Args:
            step: Steps done.
            text: What was found, such as ``2.9143 bits per byte held out``.
        """
        self._course.held_out, self._course.validating = f"{text} at step {step}", ""
        self.note(f"step {step}: {text}")

    def close(self) -> None:
        """Leave the terminal as it was found, and say what the run came to."""
        if self._live:
            self._live.stop()
        if self._course.has_begun and self._course.update:
            self.note(self._course.summary())
        self._course = Course()


def clock(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds; what is not known as a question mark."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "?"


def _pace(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _live(stream: TextIO, course: Course) -> LiveDisplay | None:
    if not stream.isatty():
        return None
    from rich.console import Console

    console = Console(file=stream)
    if console.is_dumb_terminal or not console.is_interactive:
        return None
    from helix_train.live_display import LiveDisplay

    return LiveDisplay(console, course)
