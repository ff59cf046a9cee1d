"""One writer a directory: a lock file that says who holds it, and that the system drops with the process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from typing import TYPE_CHECKING

from helix_kernel.checkpoint.durable import make_directory
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = ".writer.lock"


class WriterLock:
    """Held from the first `acquire` until `release`, or until the object or the process is gone.

    The file stays; what a dead process left in it hinders nobody, since the lock itself is gone.

    Args:
        directory: What is locked; made if it is missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: weakref.finalize[[int], WriterLock] | None = None

    def acquire(self) -> None:
        """Take the lock, or keep it.

        Raises:
            CheckpointError: Another writer holds it, or the directory refuses the file.
        """
        if self._held is not None:
            return
        path = self._directory / _NAME
        try:
            make_directory(self._directory)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self._directory}: {error.strerror}"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = _owner(descriptor)
            os.close(descriptor)
            raise CheckpointError(
                f"{self._directory} has a writer already: {owner}; stop it, or choose another directory"
            ) from None
        _sign(descriptor)
        self._held = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._held is not None:
            self._held()
            self._held = None


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, content.encode(), 0)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said which"
