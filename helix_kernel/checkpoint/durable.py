"""Directories that appear whole or not at all, and survive the loss of power once they appear.

A writer fills a hidden sibling of the directory, brings every file to the disk, renames it and
brings the rename to the disk. While it lives it holds a lock on the hidden directory, which the
operating system drops with the process: what is hidden and unlocked belongs to a dead writer.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MARK = ".helix-tmp-"


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory to fill, which becomes `path` when the block ends without error.

    Its files are written by `write_file`; the directories are brought to the disk here.

    Raises:
        CheckpointError: `path` exists, or the system refuses a write. Nothing is left behind.
    """
    temporary = hidden_sibling(path)
    try:
        _refuse_to_write_over(path)
        make_directory(temporary)
        with _held(temporary):
            yield temporary
            for folder, _, _ in os.walk(temporary, topdown=False):
                _sync(folder)
            temporary.rename(path)
            try:
                _sync(path.parent)
            except OSError:
                path.rename(temporary)  # it may be gone after a power loss, so it must not be seen now
                raise
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = error.strerror or error
        raise CheckpointError(f"cannot write checkpoint {path}: {reason}; nothing was left there") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def make_directory(path: Path) -> None:
    """Make a directory and its missing parents, each brought to the disk."""
    if not path.parent.is_dir():
        make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync(path.parent)


def write_file(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        sync_descriptor(file.fileno())


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that whoever reads it finds the older or the newer one whole, even after a power cut.

    Only one process at a time may write it.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    write_file(temporary, content)
    temporary.replace(path)
    _sync(path.parent)


def sync_descriptor(descriptor: int) -> None:
    """Wait until the disk has what was written to an open file."""
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: its fsync stops at the disk's own cache
    if full is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, full)


def remove_directory(path: Path) -> None:
    """Remove a directory so that it is at once whole or gone for every reader.

    Raises:
        CheckpointError: The system refuses; the directory stays whole.
    """
    trash = hidden_sibling(path)
    try:
        path.rename(trash)
    except OSError as error:
        raise CheckpointError(f"cannot remove checkpoint {path}: {error.strerror}") from error
    shutil.rmtree(trash, ignore_errors=True)


def hidden_sibling(path: Path) -> Path:
    """Return a name beside `path` that no reader takes for a checkpoint and `sweep` knows."""
    return path.with_name(f"{_MARK}{path.name}-{secrets.token_hex(4)}")


def sweep(parent: Path, name: str | None = None) -> list[Path]:
    """Remove what dead writers left in a directory, and return what was removed.

    Args:
        parent: The directory.
        name: Of what they were to become; everything if left out.
    """
    removed = []
    pattern = "*" if name is None else f"{glob.escape(name)}-????????"
    for leftover in sorted(parent.glob(f"{_MARK}{pattern}")):
        with suppress(OSError), _held(leftover):
            shutil.rmtree(leftover)
            removed.append(leftover)
    return removed


def _refuse_to_write_over(path: Path) -> None:
    if path.exists():
        raise CheckpointError(f"{path} exists; a checkpoint is never written over: choose another path")


def _sync(path: str | Path) -> None:
    """Bring a directory's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold the lock of a directory; BlockingIOError where another process has it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
