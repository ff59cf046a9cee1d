"""Parquet through Polars, the extra ``helix-data[polars]``: a row is a document, read as a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_data.documents.document import START, Corrupt, Document, Position
from helix_kernel.errors import DependencyError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helix_data.documents.document import Record

_ROWS = 512


@attrs.frozen
class ParquetRows:
    """Each row is a document. Row groups that lie before a position are not read.

    Args:
        column: Name of the column, of text or of bytes.
    """

    column: str

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield a record for each row, while at most a few row groups are in memory.

        Raises:
            DependencyError: Polars is not installed.
        """
        polars = _polars()
        after = start
        try:
            reason = self._unfit(polars, path)
            if reason is not None:
                yield Corrupt("the file", f"{reason} No row of the file is read", after)
                return
            rows = polars.scan_parquet(path, glob=False).select(self.column).slice(start.offset)
            for batch in rows.collect_batches(chunk_size=_ROWS, maintain_order=True):
                for record in _records(batch[self.column].to_list(), after.number):
                    after = record.after
                    yield record
        except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
            reason = f"the file is damaged, and the rest of it is lost: {str(error).splitlines()[0]}"
            yield Corrupt(f"after row {after.number}", reason, after)

    def _unfit(self, polars: Any, path: Path) -> str | None:
        """Return why a file has no such column of text or bytes, or None where it has."""
        schema = polars.read_parquet_schema(path)
        if self.column not in schema:
            names = ", ".join(map(repr, schema)) or "none"
            return f"has no column {self.column!r}; it has {names}.{did_you_mean(self.column, schema)}"
        kind = schema[self.column]
        if kind not in (polars.String, polars.Binary):
            return f"column {self.column!r} holds {kind}, not text (String) or bytes (Binary)."
        return None


def _records(values: list[str | bytes | None], number: int) -> Iterator[Record]:
    for row, value in enumerate(values, start=number + 1):
        after, place = Position(row, row), f"row {row}"
        if value is None:
            yield Corrupt(place, "is null", after)
        else:
            yield Document(value.encode() if isinstance(value, str) else value, place, after)


def _polars() -> Any:
    try:
        import polars as pl
    except ImportError as error:
        raise DependencyError(
            "Parquet files are read by Polars, which is not installed: pip install 'helix-data[polars]'"
        ) from error
    return pl
