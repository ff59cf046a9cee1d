"""What is known of each of many runs, in a line a run: cheap to find out, and damage is no error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.difference import ABSENT
from helix_kernel.errors import HelixError
from helix_train.options import ABOUT_THE_RUN, differing, options, short_names, shown
from helix_train.run_directory import METRICS, TIMING, last_with, number, read_run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FEW = 6
"""So many options that differ still fit into one column."""


@attrs.frozen(kw_only=True)
class Listed:
    """A run in a list. Numbers are None where they are not known.

    Args:
        path: Its directory.
        status: As `helix_train.run_file.RunRecord.state` tells it, or "damaged".
        started_at: When it first began, in UTC; empty where nobody wrote it down.
        step: Steps done.
        steps: Steps of the whole run.
        loss: The last training loss.
        held_out: The last loss of what is held out.
        bits_per_byte: The same in bits, where it is one of text.
        accuracy: Share of the rows held out whose class was found.
        wall_time: Seconds.
        tokens_per_second: The last speed.
        options: Of its config, by path.
        problem: What is damaged, or None.
    """

    path: Path
    status: str
    started_at: str = ""
    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    held_out: float | None = None
    bits_per_byte: float | None = None
    accuracy: float | None = None
    wall_time: float | None = None
    tokens_per_second: float | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    problem: str | None = None

    @classmethod
    def of(cls, path: Path) -> Listed:
        """Look a run up; what is damaged is said in `problem`."""
        try:
            record = read_run(path)
            last = {name: last_with(path / file, name) for name, file in _LAST.items()}
        except (HelixError, OSError) as error:
            return cls(path=path, status="damaged", problem=str(error))
        return cls(
            path=path,
            status=record.state(),
            started_at=record.started_at,
            step=record.step,
            steps=record.steps,
            loss=number(last["loss"], "loss"),
            held_out=number(record.evaluation, "loss"),
            bits_per_byte=number(record.evaluation, "bits_per_byte"),
            accuracy=number(record.evaluation, "accuracy"),
            wall_time=record.wall_time,
            tokens_per_second=number(last["tokens_per_second"], "tokens_per_second"),
            options=options(record.config),
        )


def in_order(runs: Sequence[Listed], by: str) -> list[Listed]:
    """Return runs in the order of one of their values; those that have none come last.

    Args:
        runs: The runs.
        by: The name of a value; "loss" is that of what is held out, and of training where nothing is.
    """

    def value(run: Listed) -> Any:
        if by == "loss":
            return run.loss if run.held_out is None else run.held_out
        return str(run.path) if by == "name" else getattr(run, by)

    known = [run for run in runs if value(run) not in (None, "")]
    return [*sorted(known, key=value), *(run for run in runs if value(run) in (None, ""))]


def what_differs(runs: Sequence[Listed]) -> dict[str, tuple[Any, ...]]:
    """Return the options that runs have with different values, with the value of each run or `ABSENT`.

    That a run lacks an option says only that it is older, or that the component which takes it is another
    one: then that differs.
    """
    found = differing([run.options for run in runs], but=ABOUT_THE_RUN)
    return {path: row for path, row in found.items() if len({repr(v) for v in row if v is not ABSENT}) > 1}


def in_one_column(differences: Mapping[str, tuple[Any, ...]], n_runs: int) -> list[str] | None:
    """Return for each run what sets it apart, such as ``lr=0.001``; None where that is too much to read."""
    if not 0 < len(differences) <= _FEW:
        return None
    names = short_names(list(differences))
    return [
        "  ".join(
            f"{names[path]}={shown(row[at])}" for path, row in differences.items() if row[at] is not ABSENT
        )
        for at in range(n_runs)
    ]


_LAST = {"loss": METRICS, "tokens_per_second": TIMING}
