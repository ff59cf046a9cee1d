"""One writer a directory: a lock file that says who holds it, and that the system drops with the process."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from contextlib import suppress
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
        self._identity: tuple[int, int] | None = None

    def acquire(self) -> None:
        """Take the lock, or keep it.

        Raises:
            CheckpointError: Another writer holds it, the directory refuses the file, or the directory
                was removed since the lock was taken: then it is given back.
        """
        if self._held is not None:
            self._check_place()
            return
        try:
            make_directory(self._directory)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                self._lock(descriptor)
                _sign(descriptor)
                found = os.fstat(descriptor)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise CheckpointError(
                f"cannot write checkpoints to {self._directory}: {error.strerror}"
            ) from error
        self._identity = (found.st_dev, found.st_ino)
        self._held = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if self._held is not None:
            self._held()
            self._held = None

    @property
    def _path(self) -> Path:
        return self._directory / _NAME

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CheckpointError(
                f"{self._directory} has a writer already: {_owner(descriptor)}; "
                "stop it, or choose another directory"
            ) from None

    def _check_place(self) -> None:
        """Refuse to go on where the locked file is not the one that others would lock."""
        try:
            found = self._path.stat()
            if (found.st_dev, found.st_ino) == self._identity:
                return
            reason = "was replaced"
        except OSError as error:
            reason = f"cannot be reached any more ({error.strerror})"
        self.release()
        raise CheckpointError(
            f"{self._directory} {reason} since checkpoints were first written to it; "
            "if that is meant, save again"
        )


def _sign(descriptor: int) -> None:
    """Say in the file who holds the lock; a full disk may have no room for it, which hinders nobody."""
    since = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, content.encode(), 0)


def _owner(descriptor: int) -> str:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):
        return "a process that has not said which"
