"""The live display of a run on a terminal: a bar, what the last step came to, and notes above them."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from helix_train.progress import clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.console import Console, ConsoleOptions, RenderableType

    from helix_train.progress import Course

_REFRESHES_PER_SECOND = 4
_LEVELS = "▁▂▃▄▅▆▇█"
_GAP = "   "


class LiveDisplay:
    """Draws a run's course a few times a second, in as many columns as there are.

    Args:
        console: The terminal.
        course: What is drawn, as it is at that moment.
    """

    def __init__(self, console: Console, course: Course) -> None:
        self._console = console
        self._course = course
        self._live = Live(
            self,
            console=console,
            refresh_per_second=_REFRESHES_PER_SECOND,
            redirect_stdout=False,  # results may be piped
            redirect_stderr=console.file is sys.stderr,
        )

    def note(self, text: str) -> None:
        """Show a line that stays, as it is."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Draw once more, and give the terminal back."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield Group(_bar(self._course), *_told(self._course, options))


def _bar(course: Course) -> Table:
    share = course.step / course.steps if course.steps else 0.0
    bar = Table.grid(expand=True, padding=(0, 1))
    for _ in range(2):
        bar.add_column(no_wrap=True)
    bar.add_column(ratio=1)
    for _ in range(3):
        bar.add_column(no_wrap=True, justify="right")
    bar.add_row(
        Text("step", style="dim"),
        Text(f"{course.step}/{course.steps}", style="bold"),
        ProgressBar(total=max(1, course.steps), completed=course.step),
        f"{share:.0%}",
        clock(course.elapsed),
        Text.assemble(("ETA ", "dim"), clock(course.left)),
    )
    return bar


def _told(course: Course, options: ConsoleOptions) -> Iterator[Text]:
    """Return the lines below the bar: what was learnt, and how fast."""
    update = course.update
    if course.validating:
        yield Text(course.validating, style="dim")
    if update is None:
        yield Text("the first step is under way", style="dim")
        return
    parts = [Text.assemble((f"{name} " if name else "", "dim"), text) for name, text in update.told()]
    n_learnt = 2 if update.bits_per_byte is not None else 1
    learnt, rates = parts[:n_learnt], parts[n_learnt:]
    if course.held_out:
        learnt.append(Text(course.held_out))
    if not options.ascii_only and len(course.losses) > 1:
        learnt.append(Text(sparkline(course.losses), style="cyan"))
    yield _fitting(learnt, options.max_width)
    yield _fitting(rates, options.max_width)


def sparkline(values: Sequence[float]) -> str:
    """Return values as a row of bars, the highest for the largest; a gap for one that is not finite."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return " " * len(values)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        _LEVELS[round((value - low) / span * (len(_LEVELS) - 1)) if span else 0]
        if math.isfinite(value)
        else " "
        for value in values
    )


def _fitting(parts: Iterable[Text], width: int) -> Text:
    """Join as many parts as one line takes."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        gap = _GAP if line else ""
        if line and line.cell_len + len(gap) + part.cell_len > width:
            continue
        line.append(gap)
        line.append_text(part)
    return line
