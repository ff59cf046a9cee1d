"""A system that refuses: each single system call of a save fails once, or every one from some moment on."""

import errno
import os
import shutil
import tempfile
from pathlib import Path

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError
from torture.calls import below, intercepted
from torture.kills import MODES, check_run
from torture.states import LostError, check_state, state_of

GROWING = {"mkdir", "link", "write", "pwrite", "ftruncate", "posix_fallocate"}
"""Calls that need space; so does an `open` that makes a file."""


def fail_each_call(mode, number, *, for_good=False):
    """Save with the first call failing, then the second, and so on; return how many calls a save has.

    Args:
        mode: Name in `MODES`.
        number: The `errno`.
        for_good: Calls that need space go on failing, as on a full disk; else it is one call of any kind.

    Raises:
        LostError: A save ended with anything but success or one clear `CheckpointError`, or harmed what
            was there, or the next save does not work.
    """
    root = Path(tempfile.mkdtemp())
    for index in range(1000):
        run = root / str(index)
        failing = _Failing(run, number, for_good=for_good)
        with CheckpointManager(run) as manager:
            manager.save(1, state_of(1))
        try:
            _save_with(failing, index, run, MODES[mode])
        except Exception as error:
            raise LostError(
                f"{mode}, {os.strerror(number)} at call {index}, {failing.last}: {error!r}"
            ) from error
        if not failing.failed:
            shutil.rmtree(root)
            return index
    raise LostError(f"{mode}: a save has no end")


def _save_with(failing, index, run, options):
    saved = False
    failing.left = index
    try:
        with intercepted(failing), CheckpointManager(run, **options) as manager:
            manager.save(2, state_of(2))
        saved = True
    except CheckpointError as error:
        if os.strerror(failing.number) not in str(error) or "\n" in str(error):
            raise LostError(f"it says only: {error}") from error
    if not saved and 2 in CheckpointManager(run).steps():
        raise LostError("a save that failed left its step")
    check_run(run, [1], [2] if saved else [], options["keep"])
    with CheckpointManager(run) as manager:
        manager.save(3, state_of(3))
        check_state(manager.load(3), 3)
    if left := list(run.glob(".helix-tmp-*")):
        raise LostError(f"{left} stays for ever")


class _Failing:
    """A hook that lets some calls pass and then fails."""

    def __init__(self, root, number, *, for_good):
        self.number = number
        self.left = 0
        self.failed = False
        self.last = ""
        self._root = root
        self._for_good = for_good

    def __call__(self, name, real, *args, **kwargs):
        if not below(self._root, name, args, kwargs):
            return real(*args, **kwargs)
        self.left -= 1
        grows = name in GROWING or (name == "open" and args[1] & os.O_CREAT)
        if self.left == -1 or (self._for_good and self.left < 0 and grows):
            self.failed, self.last = True, f"{name}{args[:1]}"
            raise OSError(self.number, os.strerror(self.number))
        return real(*args, **kwargs)


NUMBERS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
