"""Files that appear whole or not at all, as `durable.new_directory` makes directories."""

from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from helix_kernel.checkpoint.durable import hidden_sibling, sweep, sync_descriptor
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Give a file to fill, which becomes `path` when the block ends without error.

    It is filled in a hidden directory beside `path`; what a dead writer left there is removed.

    Raises:
        CheckpointError: `path` exists, or the system refuses a write. Nothing is left behind.
    """
    if path.exists():
        raise CheckpointError(f"{path} exists; nothing is written over: choose another path")
    folder = hidden_sibling(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        folder.mkdir()
        with _open(folder) as held, (folder / path.name).open("w+b") as file:
            fcntl.flock(held, fcntl.LOCK_EX)  # while it lives, nobody sweeps it away
            yield file
            file.flush()
            sync_descriptor(file.fileno())
            (folder / path.name).rename(path)
        with _open(path.parent) as parent:
            sync_descriptor(parent)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {path}: {error.strerror or error}; nothing was left there"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _open(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
