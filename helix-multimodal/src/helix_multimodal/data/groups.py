"""Finds which files of a folder belong together, by patterns of their names."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@attrs.frozen
class Group:
    """Data about one thing.

    Args:
        name: What its files' names share, with slashes, such as ``animals/birds/blackbird``.
        files: By part, the file that holds its data.
        texts: By part, its data where they are a line of a table.
    """

    name: str
    files: Mapping[str, Path]
    texts: Mapping[str, bytes] = attrs.field(factory=dict)

    @property
    def parts(self) -> set[str]:
        """Which parts it has."""
        return {*self.files, *self.texts}

    def read(self, part: str) -> bytes:
        """Return the bytes of a part's file or line.

        Raises:
            DataError: The file has gone.
        """
        if part in self.texts:
            return self.texts[part]
        try:
            return self.files[part].read_bytes()
        except OSError as error:
            raise DataError(f"{self.files[part]} cannot be read: {error.strerror or error}") from error


def find_groups(
    folder: str, files: Mapping[str, str], tables: Mapping[str, str], *, optional: Sequence[str] = ()
) -> list[Group]:
    """Return the groups of a folder that have every part but those that are optional, by name.

    Args:
        folder: Where the files lie, at any depth; hidden ones are passed over.
        files: By part, a pattern with ``{name}``.
        tables: By part, a file of lines ``name: text``.
        optional: Parts that a group may lack.

    Raises:
        DataError: The folder or a table cannot be read, or no group is whole.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder} is no folder; install or name the one that holds the files")
    found: dict[str, dict[str, Path]] = {}
    seen = dict.fromkeys(files, 0)
    patterns = {part: _pattern(pattern) for part, pattern in files.items()}
    for path in _below(root):
        relative = path.relative_to(root).as_posix()
        for part, pattern in patterns.items():
            if match := pattern.fullmatch(relative):
                found.setdefault(match["name"], {})[part] = path
                seen[part] += 1
    lines = {part: dict(_lines(Path(table))) for part, table in tables.items()}
    needed = {*files, *tables} - set(optional)
    groups = [
        Group(name, parts, {part: texts[name] for part, texts in lines.items() if name in texts})
        for name, parts in sorted(found.items())
    ]
    whole = [group for group in groups if needed <= group.parts]
    if not whole:
        counts = ", ".join(f"{count} of {part} ({files[part]})" for part, count in seen.items())
        raise DataError(f"{folder}: no group has all of {sorted(needed)}; found are {counts}")
    return whole


def _below(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        hidden = any(step.startswith(".") for step in path.relative_to(root).parts)
        if path.is_file() and not hidden:
            yield path


def _pattern(pattern: str) -> re.Pattern[str]:
    before, after = pattern.split("{name}")
    return re.compile(f"{re.escape(before)}(?P<name>.+){re.escape(after)}")


def _lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and texts of a table; lines of another form, such as comments, are passed over."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise DataError(f"table {path} cannot be read: {error}") from error
    for line in data.splitlines():
        name, separator, text = line.partition(b":")
        if separator and not line.startswith((b";", b"#")):
            yield name.strip().decode("utf-8", "surrogateescape"), text.strip()
