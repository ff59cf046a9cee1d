"""How the kernel's benchmarks measure: fresh processes, taken in turn, medians of CPU time."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_CLOCK = "import time as _time; _start = _time.process_time()"
_STOP = "print(_time.process_time() - _start)"


@dataclass(frozen=True)
class Table:
    """A table of results, as the documentation shows it."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table under its heading."""
        lines = [f"## {self.title}", "", self.note, ""]
        lines += [f"| {' | '.join(row)} |" for row in (self.columns, ["---"] * len(self.columns), *self.rows)]
        return "\n".join([*lines, ""])


def interleaved(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Return the median of each measure, taken in turn, so that a busy moment hits them all.

    One round before the counted ones fills the file system's caches.
    """
    taken = [{name: measure() for name, measure in measures.items()} for _ in range(rounds + 1)]
    return {name: statistics.median(round_[name] for round_ in taken[1:]) for name in measures}


def cpu_of_code(code: str, *, setup: str = "", env: Mapping[str, str] | None = None) -> float:
    """Return the CPU seconds that code takes in a fresh Python; its start and `setup` are not."""
    program = f"{setup}\n{_CLOCK}\n{code}\n{_STOP}"
    done = subprocess.run(
        [sys.executable, "-c", program], env=_environment(env), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{code!r} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def cpu_of_process(arguments: Sequence[str], *, expect: int, env: Mapping[str, str], cwd: Path) -> float:
    """Return the CPU seconds, user and system, of a whole Python process with these arguments."""
    command = [sys.executable, *arguments]
    process = subprocess.Popen(
        command, env=_environment(env), cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != expect:
        raise RuntimeError(f"{command} ended with {process.returncode}, not {expect}")
    return usage.ru_utime + usage.ru_stime


def verdict(value: float, limit: float) -> str:
    """Return whether a value meets its limit, and by how much it misses."""
    return "yes" if value <= limit else f"no, {value / limit - 1:.0%} over"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.1f} ms"


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, **(extra or {})}
