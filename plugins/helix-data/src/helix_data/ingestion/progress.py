"""Shows how an ingestion gets on: a live line on a terminal, plain lines anywhere else."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

    from helix_data.ingestion.chunks import Advance

# Named records would fill a screen; all are in skipped.jsonl.
_SHOWN = 10


class IngestProgress:
    """Progress of one ingestion.

    Args:
        stream: Where it is shown; standard error if left out, so that results can be piped.
        every: Least seconds between plain lines.
    """

    def __init__(self, stream: TextIO | None = None, *, every: float = 5.0) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._every = every
        self._live = _live(self._stream) if self._stream.isatty() else None
        self._files = self._size = self._read = self._documents = self._skipped = 0
        self._shown = -math.inf

    def begin(self, *, files: int, size: int, done: int) -> None:
        """Start, of so many files and bytes, with so many bytes read before."""
        self._files, self._size, self._read = files, size, done
        if done:
            self.note(f"{done:,} of {size:,} bytes were read before")
        if self._live:
            self._live.add_task("ingesting", total=size, completed=done, status="")
            self._live.start()

    def advance(self, advance: Advance) -> None:
        """Show what was read."""
        self._read += advance.read
        self._documents += advance.documents
        for said in advance.skipped:
            self._skipped += 1
            if self._skipped <= _SHOWN:
                self.note(f"skipped {said}")
            elif self._skipped == _SHOWN + 1:
                self.note("more were skipped; skipped.jsonl names all in the end")
        self._show()

    def note(self, text: str) -> None:
        """Show a line that stays."""
        if self._live:
            self._live.console.print(text, highlight=False, markup=False, soft_wrap=True)
        else:
            print(text, file=self._stream, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was found."""
        if self._live:
            self._live.stop()

    def _show(self) -> None:
        status = f"{self._documents:,} documents, {self._skipped:,} skipped"
        if self._live:
            self._live.update(self._live.task_ids[0], completed=self._read, status=status)
            return
        now = time.monotonic()
        if now - self._shown >= self._every or self._read == self._size:
            self._shown = now
            share = self._read / self._size if self._size else 1.0
            self.note(f"read {self._read:,} of {self._size:,} bytes ({share:.0%})  {status}")


def _live(stream: TextIO) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=Console(file=stream),
    )
