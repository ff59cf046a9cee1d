"""Files of text: one document a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import attrs

from helix_data.documents.document import START, Corrupt, Document, Position, open_bytes, until_damage
from helix_data.documents.whole_files import not_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helix_data.documents.document import Record


class Line(NamedTuple):
    """A line of a file.

    Attributes:
        data: Its bytes without the newline, or the carriage return before it.
        place: Its number, in words.
        after: Where the next one begins.
    """

    data: bytes
    place: str
    after: Position


@attrs.frozen
class Lines:
    """Each line that has anything in it is a document; it must be UTF-8."""

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield a record for each line that is not blank."""
        return until_damage(map(_record, filled_lines(path, start)), "line", start)


def lines_of(path: Path, start: Position) -> Iterator[Line]:
    """Yield the lines of a file from `start` on."""
    offset, number = start
    with open_bytes(path) as file:
        file.seek(offset)
        for data in file:
            offset, number = offset + len(data), number + 1
            yield Line(
                data.removesuffix(b"\n").removesuffix(b"\r"), f"line {number}", Position(offset, number)
            )


def filled_lines(path: Path, start: Position) -> Iterator[Line]:
    """Yield the lines that hold more than white space, from `start` on."""
    return (line for line in lines_of(path, start) if line.data and not line.data.isspace())


def _record(line: Line) -> Record:
    reason = not_text(line.data)
    if reason is None:
        return Document(*line)
    return Corrupt(line.place, reason, line.after)
