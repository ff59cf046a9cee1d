"""What a file is read as: documents, records that are corrupt, and the places between them."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol, cast

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DAMAGE = (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError)


class Position(NamedTuple):
    """A place between two records, at which reading can begin.

    Attributes:
        offset: Where the next record begins: a byte of the file, decompressed, or a row of a Parquet file.
        number: Records, or lines where a record has lines, that lie before it.
    """

    offset: int
    number: int


START = Position(0, 0)


@attrs.frozen
class Document:
    """A document.

    Args:
        data: Its bytes.
        place: Where in its file it stands, in words, such as ``line 3``.
        after: Where the next record begins.
    """

    data: bytes
    place: str
    after: Position


@attrs.frozen
class Corrupt:
    """A record that is no document.

    Args:
        place: Where in its file it stands, in words.
        reason: What is wrong with it.
        after: Where the next record begins.
    """

    place: str
    reason: str
    after: Position


Record = Document | Corrupt


class Format(Protocol):
    """A way to read files."""

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield the records of a file in order, from `start` on: the file's own, or a record's `after`.

        Raises:
            OSError: The file cannot be read.
        """
        ...


def open_bytes(path: Path) -> BinaryIO:
    """Open a file, decompressed where its name ends in ``.gz`` or ``.tgz``.

    Entering a compressed file at a position decompresses everything before it, and keeps none of it.
    """
    if path.suffix in (".gz", ".tgz"):
        return cast("BinaryIO", gzip.open(path, "rb"))
    return path.open("rb")


def until_damage(records: Iterator[Record], unit: str, start: Position) -> Iterator[Record]:
    """Yield records; where the file itself is damaged, the last one says that the rest is lost.

    Args:
        records: What is read.
        unit: What a position numbers, such as ``line``.
        start: Where reading began.
    """
    last = start
    try:
        for record in records:
            last = record.after
            yield record
    except _DAMAGE as error:
        reason = f"the file is damaged, and the rest of it is lost: {error}"
        yield Corrupt(f"after {unit} {last.number}", reason, last)
