"""JSON lines: one object a line, of which one field is the document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import attrs

from helix_data.documents.document import START, Corrupt, Document, until_damage
from helix_data.documents.lines import filled_lines
from helix_kernel.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helix_data.documents.document import Position, Record
    from helix_data.documents.lines import Line


@attrs.frozen
class JsonLines:
    """Each line that is not blank is an object.

    Args:
        field: The key of the text.
    """

    field: str

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield a record for each line that is not blank."""
        return until_damage(map(self._record, filled_lines(path, start)), "line", start)

    def _record(self, line: Line) -> Record:
        try:
            data = self._text(json.loads(line.data))
        except RecursionError:
            return Corrupt(line.place, "is nested too deep", line.after)
        except UnicodeEncodeError:
            return Corrupt(line.place, f"{self.field!r} has half a surrogate pair", line.after)
        except json.JSONDecodeError as error:
            return Corrupt(line.place, f"is not JSON: {error.msg} at character {error.pos}", line.after)
        except ValueError as error:
            return Corrupt(line.place, str(error), line.after)
        return Document(data, line.place, line.after)

    def _text(self, value: Any) -> bytes:
        """Return the field's text in UTF-8; a ValueError says why there is none."""
        if not isinstance(value, dict):
            raise ValueError(f"is {_shown(value)}, not an object")  # noqa: TRY004 - one error for all causes
        if self.field not in value:
            has = f"it has {', '.join(map(repr, value)) or 'none'}"
            raise ValueError(f"has no field {self.field!r}; {has}.{did_you_mean(self.field, value)}")
        text = value[self.field]
        if not isinstance(text, str):
            raise ValueError(f"{self.field!r} is {_shown(text)}, not text")  # noqa: TRY004 - as above
        return text.encode()


def _shown(value: Any) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null", str: "text"}
    return names.get(type(value), "a number")
