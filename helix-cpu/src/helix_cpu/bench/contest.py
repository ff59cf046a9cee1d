"""How contestants are timed: on the same inputs, in turn, over rounds; and what the medians say.

A busy moment of the machine then hits all of them, and ratios in one run stay comparable.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Clock = Callable[[], float]

OURS = "ours"
_SHORTEST_S = 0.003
"""What is timed at once takes at least as long: a faster run is repeated."""
_PATIENCE_S = 2.0
"""A contestant's runs take about as long in all; one that needs longer for a single run has that one."""
_TOLERANCE = 2e-3
"""How far a peer's result may be from ours, of the largest element: both computed in float32."""


class AbsentError(HelixError):
    """A peer, or what it needs, is not on this machine; the message says how to get it."""


@attrs.frozen
class Entry:
    """A contestant, ready to run on inputs that it holds.

    Args:
        run: Does the work once.
        read: Makes of a run's result what ours gives; None where there is nothing to compare.
    """

    run: Callable[[], Any]
    read: Callable[[Any], Any] | None = None


@attrs.frozen
class Goal:
    """The limit that a figure should keep, on the side that `at_least` names."""

    limit: float
    at_least: bool

    def met(self, value: float) -> bool:
        """Whether a figure keeps it."""
        return value >= self.limit if self.at_least else value <= self.limit


@attrs.frozen
class Line:
    """One figure to be read off the times of a contest.

    Args:
        against: What ours is held against.
        value: The figure, of the median seconds by contestant.
        needs: Contestants whose times it reads, the first being the one that `against` names.
        unit: What stands behind the figure.
        goal: What it should be, if anything was set.
    """

    against: str
    value: Callable[[Mapping[str, float]], float]
    needs: tuple[str, ...]
    unit: str = "×"  # noqa: RUF001 - the sign that is meant
    goal: Goal | None = None


@attrs.frozen
class Contest:
    """Contestants over one op and shape.

    Args:
        op: The op, as ``--ops`` names it.
        title: What is done with it.
        shape: The sizes, as the table shows them.
        enter: Makes the inputs and returns what prepares each contestant on them, ours by the
            name `OURS`; a preparation may raise `AbsentError`.
        lines: What to read off the times.
        isa: The instruction set to use; None for the one in use.
        pinned: Whether the process keeps to as many cores as threads are asked for; then peers that make
            threads of their own have no more than we.
    """

    op: str
    title: str
    shape: str
    enter: Callable[[], Mapping[str, Callable[[], Entry]]]
    lines: tuple[Line, ...]
    isa: str | None = None
    pinned: bool = True


@attrs.frozen
class Row:
    """A line with its figure, or with the reason why there is none."""

    op: str
    title: str
    shape: str
    against: str
    ours_s: float | None
    theirs_s: float | None
    value: float | None
    unit: str
    goal: Goal | None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where there is no goal or no figure."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)


def hold(contest: Contest, rounds: int, clock: Clock = time.perf_counter) -> list[Row]:
    """Time the contestants and return a row for each line."""
    entries, absent = _prepare(contest.enter())
    times, wrong = _time(entries, rounds, clock)
    return [_row(contest, line, times, absent | wrong) for line in contest.lines]


def times_faster(peer: str, at_least: float | None = None) -> Line:
    """How many times as long as ours a peer takes."""
    goal = None if at_least is None else Goal(at_least, at_least=True)
    return Line(peer, lambda t: t[peer] / t[OURS], (peer, OURS), goal=goal)


def times_slower(peer: str, at_most: float) -> Line:
    """How many times as long as a peer ours takes."""
    return Line(peer, lambda t: t[OURS] / t[peer], (peer, OURS), goal=Goal(at_most, at_least=False))


def _prepare(
    contestants: Mapping[str, Callable[[], Entry]],
) -> tuple[dict[str, Entry], dict[str, str]]:
    """Prepare each contestant; returns those that are there, and why the others are not."""
    entries, absent = {}, {}
    for name, prepare in contestants.items():
        try:
            entries[name] = prepare()
        except AbsentError as error:
            absent[name] = str(error)
    return entries, absent


def _time(entries: Mapping[str, Entry], rounds: int, clock: Clock) -> tuple[dict[str, float], dict[str, str]]:
    """Return median seconds by contestant, and what is wrong with those left out."""
    first: dict[str, float] = {}
    wrong: dict[str, str] = {}
    expected = None
    for name, entry in entries.items():
        start = clock()
        result = entry.run()
        first[name] = clock() - start
        if entry.read is not None:
            found = entry.read(result)
            expected = found if name == OURS else expected
            difference = distance(found, expected)
            if difference > _TOLERANCE:
                wrong[name] = f"its result is {difference:.1e} of the largest element away from ours"
    taken = {name: [first[name]] for name in entries if name not in wrong}
    quick = {name: entries[name].run for name in taken if first[name] <= _PATIENCE_S}
    if quick:
        taken |= _rounds(quick, rounds, clock)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}, wrong


def _rounds(runs: Mapping[str, Callable[[], Any]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Time each run in each round, short ones several times at once and long ones in fewer rounds."""
    once = {name: seconds(run, 1, clock) for name, run in runs.items()}
    repeats = {name: max(1, math.ceil(_SHORTEST_S / max(t, 1e-9))) for name, t in once.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds):
        for name, run in runs.items():
            if round_ == 0 or (round_ + 1) * repeats[name] * once[name] <= _PATIENCE_S:
                taken[name].append(seconds(run, repeats[name], clock))
    return taken


def seconds(run: Callable[[], Any], repeats: int, clock: Clock = time.perf_counter) -> float:
    """Return the seconds that a run takes, the mean over so many in a row."""
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def distance(found: Any, expected: Any) -> float:
    """Return the largest difference of two tensors, of the largest element of the second."""
    largest = max(expected.abs().max().item(), 1e-30)
    difference = (found - expected).abs().max().item()
    return math.inf if math.isnan(difference) else difference / largest


def _row(contest: Contest, line: Line, times: Mapping[str, float], why_not: Mapping[str, str]) -> Row:
    missing = [name for name in line.needs if name not in times]
    value, note = None, why_not[missing[0]] if missing else ""
    if not missing:
        try:
            value = line.value(times)
        except AbsentError as error:
            note = str(error)
    theirs = times.get(line.needs[0]) if line.needs else None
    return Row(
        contest.op,
        contest.title,
        contest.shape,
        line.against,
        times.get(OURS),
        theirs,
        value,
        line.unit,
        line.goal,
        note,
    )
