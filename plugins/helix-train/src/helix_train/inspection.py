"""The commands `helix report`, `helix runs` and `helix diff`: looking at what runs have left."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from helix_kernel.checkpoint.difference import ABSENT
from helix_kernel.cli.output import clipped, print_json, print_table, strict_json, told_apart
from helix_kernel.errors import InputError
from helix_train.options import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from helix_train.run_list import Listed

Sort = Literal["started", "name", "status", "step", "loss", "bits-per-byte", "wall-time", "tokens-per-second"]


def report(run: str, /, *, open: bool = False, json: bool = False) -> None:  # noqa: A002 - the option's name
    """Write the report of a run, report.html, into its directory.

    Args:
        run: The run's directory; the run may still go on.
        open: Show it in a browser.
        json: Print one JSON object.
    """
    from helix_train.report import write_report

    path = write_report(Path(run))
    if json:
        print_json({"run": run, "report": str(path), "bytes": path.stat().st_size})
    else:
        sys.stdout.write(f"{path}\n")
    if open:
        webbrowser.open(path.resolve().as_uri())


def runs(*words: str, sort: Sort = "started", json: bool = False) -> None:
    """List the runs in and below folders; or, with ``compare`` as the first word, compare runs.

    A loss in the list is the last one of training, "held out" that of what is held out; the last column has
    the options that the runs differ in, where they are few.

    Args:
        words: Folders, "runs" if left out; or the word compare and the directories of two runs or more.
        sort: In which order they are listed; loss means that held out where there is one.
        json: Print one JSON object.
    """
    if words and words[0] == "compare":
        _compare([Path(word) for word in words[1:]], json=json)
    else:
        _list([Path(word) for word in words or ("runs",)], sort, json=json)


def diff(first: str, second: str, /, *, json: bool = False) -> None:
    """Show what two checkpoints, two runs or two configs differ in, or two of different kinds.

    Configs are compared with every default filled in. Two checkpoints are compared array by array; of
    anything else and a checkpoint only what describes it.

    Args:
        first: A config file, the directory of a run, or a checkpoint.
        second: Another.
        json: Print one JSON object.
    """
    from helix_kernel.cli.checkpoint_diff import diff as diff_checkpoints
    from helix_train.sides import changes, side_at

    one, other = side_at(first), side_at(second)
    if one.kind == other.kind == "checkpoint":
        diff_checkpoints(first, second, json=json)
        return
    found = changes(one, other)
    if json:
        sides = {
            name: {"kind": side.kind, "path": side.path} for name, side in (("first", one), ("second", other))
        }
        groups = {name: strict_json(attrs.asdict(change)) for name, change in found.items()}
        print_json({**sides, "equal": not found, "differences": groups})
        return
    sys.stdout.write(f"first   {one.kind} {one.path}\nsecond  {other.kind} {other.path}\n")
    if not found:
        sys.stdout.write("They tell the same.\n")
    for name, change in found.items():
        rows = [
            *((path, *_cells(*pair)) for path, pair in change.changed.items()),
            *((path, *_cells(value), "-") for path, value in change.removed.items()),
            *((path, "-", *_cells(value)) for path, value in change.added.items()),
        ]
        sys.stdout.write("\n")
        print_table((name, "first", "second"), rows)
    if one.kind == other.kind == "run":
        sys.stdout.write(f"\nweights: helix diff {one.path}/checkpoints {other.path}/checkpoints\n")


def _list(folders: Sequence[Path], sort: Sort, *, json: bool) -> None:
    from helix_train.run_directory import find_runs
    from helix_train.run_list import Listed, in_one_column, in_order, what_differs

    found = in_order([Listed.of(path) for path in find_runs(folders)], _SORTED.get(sort, sort))
    differences = what_differs(found)
    if json:
        print_json({"runs": [_document(run, differences, at) for at, run in enumerate(found)]})
        return
    if not found:
        sys.stdout.write(f"no runs in {', '.join(map(str, folders))}\n")
        return
    column = in_one_column(differences, len(found))
    head = [name for name, _ in _COLUMNS] + ([] if column is None else ["differs in"])
    rows = [
        [*(write(run) for _, write in _COLUMNS), *([] if column is None else [column[at]])]
        for at, run in enumerate(found)
    ]
    print_table(head, rows)
    for run in found:
        if run.problem:
            sys.stderr.write(f"note: {run.problem}\n")
    if column is None and differences:
        sys.stdout.write(f"{len(differences)} options differ: helix runs compare RUN RUN\n")


def _document(run: Listed, differences: Mapping[str, tuple[Any, ...]], at: int) -> dict[str, Any]:
    values = {
        name: value
        for name, value in attrs.asdict(run, recurse=False).items()
        if name not in ("options", "path")
    }
    differs = {path: row[at] for path, row in differences.items() if path in run.options}
    document: dict[str, Any] = strict_json({"path": str(run.path), **values, "differs": differs})
    return document


def _compare(paths: Sequence[Path], *, json: bool) -> None:
    from helix_train.run_comparison import compare
    from helix_train.run_directory import require_run

    if len(paths) < 2:
        raise InputError("helix runs compare takes the directories of two runs or more")
    found = compare([require_run(path) for path in paths])
    names = [str(path) for path in paths]
    if json:
        options = {path: [None if v is ABSENT else v for v in row] for path, row in found.options.items()}
        results = {name: list(row) for name, row in found.results.items()}
        losses = {str(step): list(row) for step, row in found.losses.items()}
        whole = {"options": options, "results": results, "unit": found.unit, "losses": losses}
        print_json(strict_json({"runs": names, **whole}))
        return
    known = {name: row for name, row in found.results.items() if any(value is not None for value in row)}
    for title, table, write in (
        ("option", found.options, _cells),
        ("result", known, _results),
        (f"{found.unit.replace('_', ' ')} at step", found.losses, _results),
    ):
        if table:
            print_table((title, *names), [(str(name), *write(*row)) for name, row in table.items()])
            sys.stdout.write("\n")


def _cells(*values: Any) -> list[str]:
    return [clipped(shown(value)) for value in told_apart(*values)]


def _results(*values: Any) -> list[str]:
    return [_number(value) if isinstance(value, float | None) else str(value) for value in values]


def _number(value: float | None) -> str:
    from helix_train.report.numbers import significant

    return "-" if value is None else significant(value)


def _time(seconds: float | None) -> str:
    from helix_train.report.numbers import duration

    return "-" if seconds is None else duration(seconds)


def _steps(run: Listed) -> str:
    if run.step is None:
        return "-"
    return str(run.step) if run.steps is None else f"{run.step}/{run.steps}"


_SORTED = {"started": "started_at", "bits-per-byte": "bits_per_byte", "wall-time": "wall_time"} | {
    "tokens-per-second": "tokens_per_second"
}
_COLUMNS: tuple[tuple[str, Callable[[Listed], str]], ...] = (
    ("run", lambda run: str(run.path)),
    ("status", lambda run: run.status),
    ("step", _steps),
    ("loss", lambda run: _number(run.loss)),
    ("held out", lambda run: _number(run.held_out)),
    ("bits/byte", lambda run: _number(run.bits_per_byte)),
    ("time", lambda run: _time(run.wall_time)),
    ("tokens/s", lambda run: _number(run.tokens_per_second)),
)
