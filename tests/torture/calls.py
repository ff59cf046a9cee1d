"""Stands between a program and the system calls that change files, without changing the program."""

import io
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

NAMES = (
    "open",
    "mkdir",
    "link",
    "rename",
    "replace",
    "unlink",
    "remove",
    "rmdir",
    "write",
    "pwrite",
    "ftruncate",
    "posix_fallocate",
    "fsync",
    "fdatasync",
)
"""Functions of `os` that writers of checkpoints call."""


@contextmanager
def intercepted(hook):
    """Send calls of `NAMES`, from any thread, through a hook.

    Args:
        hook: Called with the function's name, the function and its arguments; what it returns or
            raises, the caller gets.
    """

    def between(name):
        real = getattr(os, name)
        return lambda *args, **kwargs: hook(name, real, *args, **kwargs)

    with ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(mock.patch.object(os, name, between(name)))
        stack.enter_context(mock.patch.object(io, "open", _open(io.open)))
        yield


def below(root, name, args, kwargs):
    """Whether a call is about a file or directory below a root."""
    target = args[1] if name == "link" else args[0]
    if isinstance(target, int):
        target = _path_of(target)
    elif (parent := kwargs.get("dir_fd")) is not None:
        target = f"{_path_of(parent)}/{target}"
    return Path(target).is_relative_to(root)


def _path_of(descriptor):
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _open(real):
    """Return an `io.open` whose files are opened and written by `os`, where the hook sees it."""

    def opened(file, mode="r", *args, **kwargs):
        if mode != "wb":
            return real(file, mode, *args, **kwargs)
        return io.BufferedWriter(_Raw(file, "w", opener=lambda path, flags: os.open(path, flags, 0o666)))

    return opened


class _Raw(io.FileIO):
    def write(self, content):
        return os.write(self.fileno(), content)
