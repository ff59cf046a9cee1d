"""Files of text or bytes: one document a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from helix_data.documents.document import START, Corrupt, Document, Position, open_bytes, until_damage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helix_data.documents.document import Record


@attrs.frozen
class WholeFiles:
    """Each file is a document.

    Args:
        text: Whether it must be UTF-8.
    """

    text: bool

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield the file's one record."""
        return until_damage(self._records(path, start), "byte", start)

    def _records(self, path: Path, start: Position) -> Iterator[Record]:
        if start != START:
            return
        with open_bytes(path) as file:
            data = file.read()
        after = Position(len(data), 1)
        reason = not_text(data) if self.text else None
        yield (
            Document(data, "the whole file", after) if reason is None else Corrupt("the file", reason, after)
        )


def not_text(data: bytes) -> str | None:
    """Return why bytes are not UTF-8, or None where they are."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return f"is not UTF-8: byte {error.start} is {data[error.start]:#04x} ({error.reason})"
    return None
