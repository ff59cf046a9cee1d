"""Damaged files of every kind end in a sample or in one DataError, soon, and in bounded memory."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ENDS = ("sample", "DataError", "DependencyError")
SECONDS = 5.0
"""Most time of the processor that a file of some kilobytes may take."""
KIBIBYTES = 1 << 20
"""Most memory that the process may come to hold, of which Python and PyTorch alone take a third."""


class Worker:
    """A process that loads damaged files; a new one for each that dies or hangs."""

    def __init__(self):
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def start(self):
        script = Path(__file__).with_name("hostile_worker.py")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        assert self.answer(240), "the worker does not start; run hostile_worker.py alone to see why"

    def answer(self, seconds):
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else ""
        return json.loads(line) if line else None

    def load(self, number):
        """Return the kind, name, end, seconds and peak memory of a case."""
        if self.process is None:
            self.start()
        self.process.stdin.write(f"{number}\n")
        found = self.answer(8 * SECONDS)
        if found is None:
            code = self.process.poll()
            self.stop()
            end = "hangs" if code is None else f"ends the process with code {code}"
            return "?", "?", end, 0.0, 0
        return found


def check(numbers):
    """Load damaged files, print what became of them, and complain about each that ended otherwise."""
    wrong, ends = [], Counter()
    slowest = (0.0, "")
    peak = 0
    with Worker() as worker:
        for number in numbers:
            kind, name, end, seconds, memory = worker.load(number)
            slowest, peak = max(slowest, (seconds, f"{name}, case {number}")), max(peak, memory)
            ends[kind, end if end in ENDS else "other"] += 1
            if end not in ENDS or seconds > SECONDS or memory > KIBIBYTES:
                wrong.append(f"case {number}, {name}: {end}, {seconds:.1f} s, {memory >> 10} MiB")
    print("\n".join(f"{kind}: {count} times {end}" for (kind, end), count in sorted(ends.items())))
    print(f"slowest: {slowest[0]:.2f} s ({slowest[1]}); peak: {peak >> 10} MiB")
    said = "\n".join(wrong[:40])
    assert not wrong, f"{len(wrong)} of {len(numbers)} (`hostile_worker.py NUMBER` shows one):\n{said}"
    assert {end for _, end in ends} >= {"sample", "DataError"}, "nothing was damaged, or nothing loaded"


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which limits and tells memory")
def test_200_damaged_files_end_as_they_should():
    check(range(200))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux, which limits and tells memory")
def test_10_000_damaged_files_end_as_they_should():
    check(range(200, 10_200))
