"""CSV: one document a row, in the column that its first line names."""

from __future__ import annotations

import csv
import sys
from typing import TYPE_CHECKING

import attrs

from helix_data.documents.document import START, Corrupt, Document, Position, open_bytes, until_damage
from helix_kernel.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from helix_data.documents.document import Record


@attrs.frozen
class CsvRows:
    """Each row is a document, as RFC 4180 has them: a quoted field may hold newlines, "" is a quote.

    A quote that is never closed takes all that follows it into its row, which is then corrupt. A row that
    is corrupt is left at its line's end.

    Args:
        column: Name of the column, in the file's first line.
        delimiter: What stands between two fields.
    """

    column: str
    delimiter: str = ","

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield a record for each row but the first, which names the columns."""
        return until_damage(self._records(path, start), "line", start)

    def _records(self, path: Path, start: Position) -> Iterator[Record]:
        # The limit that the module begins with, 128 KiB a field, is one of every reader in the process.
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        with open_bytes(path) as file:
            lines = _CountedLines(file)
            header = next(self._rows(lines), [])
            if not isinstance(header, list) or self.column not in header:
                yield Corrupt("line 1", self._no_column(header), lines.after)
                return
            if start != START:
                lines.enter(start)
            where = header.index(self.column)
            first = lines.after.number + 1
            for row in self._rows(lines):
                yield self._record(row, where, len(header), f"line {first}", lines.after)
                first = lines.after.number + 1

    def _rows(self, lines: _CountedLines) -> Iterator[Sequence[str] | Exception]:
        """Yield rows, and for each that is corrupt the error; blank lines are none."""
        rows = csv.reader(lines, delimiter=self.delimiter, strict=True)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except (csv.Error, UnicodeDecodeError) as error:
                yield error
            else:
                if row:
                    yield row

    def _record(
        self, row: Sequence[str] | Exception, where: int, width: int, place: str, after: Position
    ) -> Record:
        if isinstance(row, UnicodeDecodeError):
            return Corrupt(place, f"is not UTF-8: {row.reason}", after)
        if isinstance(row, Exception):
            return Corrupt(place, f"is not CSV: {row}", after)
        if len(row) != width:
            return Corrupt(place, f"has {len(row)} fields where the first line has {width}", after)
        return Document(row[where].encode(), place, after)

    def _no_column(self, header: Sequence[str] | Exception) -> str:
        if isinstance(header, Exception):
            return f"names no columns: {header}; no row of the file is read"
        names = ", ".join(map(repr, header)) or "none"
        hint = did_you_mean(self.column, header)
        return f"has no column {self.column!r}; it has {names}.{hint} No row of the file is read"


class _CountedLines:
    """The lines of a file as text, and where it is in the file.

    Args:
        file: From its beginning.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.after = START

    def enter(self, position: Position) -> None:
        self._file.seek(position.offset)
        self.after = position

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = next(self._file)
        offset, number = self.after
        self.after = Position(offset + len(data), number + 1)
        # A mark of the byte order, as spreadsheets write, is no part of the first column's name.
        return data.decode("utf-8-sig" if number == 0 else "utf-8")
