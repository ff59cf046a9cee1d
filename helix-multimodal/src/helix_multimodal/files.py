"""Opens what a modality reads from or writes to: a path or an open binary file, with one style of error."""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import attrs

from helix_kernel.errors import DataError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.modality import Source

MAX_BYTES = 1 << 30
"""Bytes that one file may take when it is decoded, where an option says nothing else."""


@attrs.frozen
class Opened:
    """A binary file that is open for reading, from where it stands, and what errors call it."""

    file: BinaryIO
    where: str


@contextmanager
def reading(source: Source) -> Iterator[Opened]:
    """Open a path, or take an open file as it is, which stays open.

    Raises:
        DataError: There is no such file, or it cannot be read.
    """
    if is_file(source):
        yield Opened(source, str(getattr(source, "name", "the file")))  # type: ignore[arg-type]  # mypy cannot tell
        return
    path = os.fspath(source)  # type: ignore[arg-type]  # likewise
    try:
        with Path(path).open("rb") as file:
            yield Opened(file, str(path))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def content(opened: Opened, max_bytes: int) -> bytes:
    """Return all that is left of a file.

    Raises:
        DataError: It is more than `max_bytes`, or cannot be read.
    """
    try:
        data = opened.file.read(_size(opened.file, max_bytes))
    except OSError as error:
        raise DataError(f"{opened.where} cannot be read: {error.strerror or error}") from error
    check_size(opened.where, len(data), max_bytes)
    return data


@contextmanager
def writing(target: Source) -> Iterator[BinaryIO]:
    """Open a file to write; a path holds all of it afterwards or, after an error, what it held before.

    Raises:
        InputError: The system refuses to write there.
    """
    if is_file(target):
        yield target  # type: ignore[misc]  # mypy cannot tell
        return
    path = Path(os.fspath(target))  # type: ignore[arg-type]  # likewise
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("w+b") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def check_size(where: str, n_bytes: int, max_bytes: int) -> None:
    """Raise `DataError` where a file says that it takes more memory than is allowed."""
    if n_bytes > max_bytes:
        raise DataError(
            f"{where} would take {n_bytes:,} bytes when it is decoded, allowed are max_bytes={max_bytes:,}"
        )


def _size(file: BinaryIO, most: int) -> int:
    """Return how many bytes to ask for: memory for all that is asked for is taken before it is read."""
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        return most + 1
    place = file.tell()
    left = file.seek(0, os.SEEK_END) - place
    file.seek(place)
    return max(0, min(left, most)) + 1


def suffix_of(target: Source) -> str:
    """Return how a path's name ends, such as ``.png``; nothing of an open file."""
    return "" if is_file(target) else Path(os.fspath(target)).suffix  # type: ignore[arg-type]  # mypy cannot tell


def is_file(source: Source) -> bool:
    """Whether it is an open file and no path."""
    return not isinstance(source, str | os.PathLike) and (hasattr(source, "read") or hasattr(source, "write"))
