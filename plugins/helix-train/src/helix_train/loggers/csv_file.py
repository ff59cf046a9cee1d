"""The logger `csv`: one table, a row a step, whose columns may come later."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, TextIO

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from helix_train.loggers.base import RunInfo, Status

Row = dict[str, Any]


class CsvLogger:
    """Writes metrics to a CSV file, each row as soon as it is known.

    Numbers are written in full (``nan``, ``inf`` and ``-inf`` too); what a step does not have is left empty.
    A metric that comes later adds a column: the file is then written anew, as it is where a run goes back.

    Args:
        file: The file, below the run's directory or absolute.
    """

    def __init__(self, *, file: str = "metrics.csv") -> None:
        self._file = file
        self._columns = ["step"]
        self._row: Row = {}
        self._row_at = 0
        self._stream: TextIO | None = None

    def begin(self, run: RunInfo) -> None:
        """Open the file; rows of steps that do not count any more are dropped.

        Raises:
            DataError: The file that is to be continued is no table of metrics.
        """
        self._path = run.out / self._file
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows: list[Row] = []
        if run.step and self._path.exists():
            self._columns, rows = _read(self._path)
        self._rewrite(row for row in rows if int(row["step"]) <= run.step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write a step's row, or add to it where it is the last one."""
        if step < self._row.get("step", 0):
            self._drop_from(step)
        if self._row.get("step") == step:
            self._row.update(values)
        else:
            self._row = {"step": step, **values}
            self._row_at = self._opened().tell()
        new = [name for name in values if name not in self._columns]
        if new:
            self._add_columns(new)
        self._write_row()

    def drop_after(self, step: int) -> None:
        """Take the rows of the steps after one out of the file."""
        self._drop_from(step + 1)

    def finish(self, status: Status) -> None:  # noqa: ARG002 - a table says nothing of it
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def read_back(self, run: RunInfo) -> dict[str, list[tuple[int, float]]]:
        """Return the points (step, value) of each column.

        Raises:
            DataError: The file is no table of metrics.
        """
        columns, rows = _read(run.out / self._file)
        return {
            name: [(int(row["step"]), float(row[name])) for row in rows if row[name]] for name in columns[1:]
        }

    def _opened(self) -> TextIO:
        assert self._stream is not None, "begin() comes first"
        return self._stream

    def _write_row(self) -> None:
        stream = self._opened()
        stream.seek(self._row_at)
        stream.truncate()
        stream.write(_line([self._row.get(name, "") for name in self._columns]))
        stream.flush()

    def _add_columns(self, names: list[str]) -> None:
        self._opened().close()
        _, rows = _read(self._path)
        self._columns = [*self._columns, *names]
        self._rewrite(row for row in rows if int(row["step"]) != self._row["step"])

    def _drop_from(self, step: int) -> None:
        self._opened().close()
        _, rows = _read(self._path)
        kept = [row for row in rows if int(row["step"]) < step]
        self._rewrite(kept[:-1])
        if kept:  # values of the last one's step may follow
            self._row = {**kept[-1], "step": int(kept[-1]["step"])}
            self._write_row()

    def _rewrite(self, rows: Iterable[Row]) -> None:
        lines = [
            _line(self._columns),
            *(_line([row.get(name, "") for name in self._columns]) for row in rows),
        ]
        temporary = self._path.with_name(f"{self._path.name}.tmp")
        temporary.write_text("".join(lines), encoding="utf-8", newline="")
        temporary.replace(self._path)
        self._stream = self._path.open("r+", encoding="utf-8", newline="")
        self._row_at = self._stream.seek(0, io.SEEK_END)


def _line(values: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


def _read(path: Path) -> tuple[list[str], list[Row]]:
    """Return the columns and the rows; a last line that a kill cut short is left out."""
    text = path.read_text(encoding="utf-8")
    reader = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    columns = list(reader.fieldnames or ())
    rows = list(reader)
    if not columns or columns[0] != "step" or not all(row["step"].isdigit() for row in rows):
        raise DataError(f"{path}: no table of metrics, which begins with the column 'step'; remove it")
    return columns, rows
