"""Runs contests: threads, cores and instruction set as each one wants them, and back as they were."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import torch

from helix_cpu import library
from helix_cpu.bench.contest import Row, hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from helix_cpu.bench.contest import Contest


def run(
    contests: Sequence[Contest], *, threads: int, rounds: int, show: Callable[[list[Row]], None]
) -> list[Row]:
    """Hold the contests and return their rows.

    Those that are free to use all cores come first: threads that a peer starts later on keep for good to the
    cores that the process had then.

    Args:
        contests: What to hold.
        threads: How many threads, and in pinned contests cores, there are.
        rounds: How often each contestant runs.
        show: Is given the rows of each contest as soon as they are there.
    """
    rows: list[Row] = []
    for contest in sorted(contests, key=lambda contest: contest.pinned):
        with _threads(threads), _cores(threads if contest.pinned else None):
            # Of one thread, CPU time says the same as the clock on the wall, and a busy machine less.
            clock = time.process_time if contest.pinned and threads == 1 else time.perf_counter
            found = _hold(contest, rounds, clock)
        show(found)
        rows += found
    return rows


def _hold(contest: Contest, rounds: int, clock: Callable[[], float]) -> list[Row]:
    if contest.isa is None:
        return hold(contest, rounds, clock)
    if contest.isa not in library.supported():
        return [_unsupported(contest, against) for against in (line.against for line in contest.lines)]
    before = library.use(contest.isa)
    try:
        return hold(contest, rounds, clock)
    finally:
        library.restore(before)


def _unsupported(contest: Contest, against: str) -> Row:
    note = f"this processor has no {contest.isa}"
    return Row(contest.op, contest.title, contest.shape, against, None, None, None, "", None, note)


@contextlib.contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _cores(n: int | None) -> Iterator[None]:
    """Keep this thread, and those it starts, to so many cores, where the system can; None: to no fewer."""
    if n is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
