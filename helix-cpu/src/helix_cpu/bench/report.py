"""The rows of the table, as text for people and as values for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from helix_cpu.bench.contest import Goal, Row

COLUMNS = ("op", "shape", "ours", "against", "its time", "result", "goal", "met")
NOTES = """\
Times are medians of rounds in which ours and the peers run in turn on the same inputs: of one thread the
process's CPU time, of more the clock on the wall. The result says how many times as long as ours the
peer takes, or, where the goal is an upper limit, ours as the peer. A peer whose result differs from ours
is not timed. ggml is spared what it leaves to other nodes of its graph (bias, skip, gate). The port
bound is the time of as many fused multiply-adds as the kernel needs vector instructions (13 for each
vector of the selective scan's elements), issued in the same run.
"""


def header() -> str:
    """Return the first two lines of the table."""
    return f"{_line(COLUMNS)}\n{_line(['---'] * len(COLUMNS))}"


def lines(rows: Iterable[Row]) -> str:
    """Return rows as lines of the table."""
    return "\n".join(_line(_cells(row)) for row in rows)


def values(row: Row) -> dict[str, Any]:
    """Return a row as JSON can hold it."""
    return {
        "op": row.op,
        "title": row.title,
        "shape": row.shape,
        "against": row.against,
        "ours_s": row.ours_s,
        "theirs_s": row.theirs_s,
        "value": row.value,
        "unit": row.unit.strip(),
        "goal": None if row.goal is None else row.goal.limit,
        "at_least": None if row.goal is None else row.goal.at_least,
        "met": row.met,
        "note": row.note,
    }


def duration(seconds: float | None) -> str:
    """Return seconds in the unit that suits them."""
    if seconds is None:
        return ""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{number(seconds / size)} {unit}"
    return f"{number(seconds * 1e6)} µs"


def number(value: float) -> str:
    """Return a number with three digits that count, whole from 100."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(row: Row) -> tuple[str, ...]:
    result = row.note if row.value is None else f"{number(row.value)}{row.unit}"
    met = {True: "yes", False: "**no**", None: ""}[row.met]
    return (
        f"{row.op}, {row.title}",
        row.shape,
        duration(row.ours_s),
        row.against,
        duration(row.theirs_s),
        result,
        _goal(row.goal, row.unit),
        met,
    )


def _goal(goal: Goal | None, unit: str) -> str:
    return "" if goal is None else f"{'≥' if goal.at_least else '≤'} {number(goal.limit)}{unit}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
