"""Which format a file is read as."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

import attrs

from helix_data.documents.csv_rows import CsvRows
from helix_data.documents.jsonl import JsonLines
from helix_data.documents.lines import Lines
from helix_data.documents.parquet import ParquetRows
from helix_data.documents.tar_members import TarMembers
from helix_data.documents.whole_files import WholeFiles

if TYPE_CHECKING:
    from helix_data.documents.document import Format

FormatName = Literal["auto", "bytes", "text", "lines", "jsonl", "csv", "tsv", "parquet", "tar"]

_BY_SUFFIX: dict[str, FormatName] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".tar": "tar",
    ".tgz": "tar",
}


@attrs.frozen(kw_only=True)
class FormatOptions:
    """How files are read.

    Args:
        format: ``bytes`` and ``text`` (a file is a document), ``lines``, ``jsonl``, ``csv``, ``tsv``,
            ``parquet``, ``tar``; ``auto``: what the file's name ends in says, and ``bytes`` otherwise.
            All but Parquet may be compressed by gzip, and then end in ``.gz``.
        field: The field (of JSON lines) or column (of CSV and Parquet) that holds the document.
        member: The suffix of the members of tar archives that are documents; None: all are.
    """

    format: FormatName = "auto"
    field: str = "text"
    member: str | None = None

    def of(self, name: str) -> Format:
        """Return the format of a file of that name."""
        found = format_of(name) if self.format == "auto" else self.format
        formats: dict[str, Format] = {
            "bytes": WholeFiles(text=False),
            "text": WholeFiles(text=True),
            "lines": Lines(),
            "jsonl": JsonLines(self.field),
            "csv": CsvRows(self.field),
            "tsv": CsvRows(self.field, "\t"),
            "parquet": ParquetRows(self.field),
            "tar": TarMembers(self.member),
        }
        return formats[found]


def format_of(name: str) -> FormatName:
    """Return the format that a file's name stands for."""
    return _BY_SUFFIX.get(PurePath(name.removesuffix(".gz")).suffix.lower(), "bytes")
