"""Power loss on a real ext4: it stops in the middle of saves, loses its cache, and is mounted again.

Needs root, ``mkfs.ext4`` and a loop device. The mount lives in a namespace of this process's own.
"""

import ctypes
import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError
from torture.kills import MODES, check_run
from torture.states import LostError, good_steps, state_of

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN of Linux's uapi/linux/ext4.h."""
_WITHOUT_FLUSHING = 2
_NEW_MOUNTS = 0x20000
"""CLONE_NEWNS of Linux's uapi/linux/sched.h."""
_IMAGE_BYTES = 192 * 2**20
_LIFE = 0.25


def missing():
    """Return why this cannot be done here, or None."""
    if os.geteuid():
        return "only root may mount"
    if not (shutil.which("mkfs.ext4") and Path("/dev/loop-control").exists()):
        return "there is no mkfs.ext4 or no loop device"
    return None


def run_rounds(rounds, seed):
    """Cut the power in saves of all modes in turn, so many times in all."""
    rng = np.random.default_rng(seed)
    _leave_mount_namespace()
    with tempfile.TemporaryDirectory() as folder:
        image, mount = Path(folder, "image"), Path(folder, "mount")
        mount.mkdir()
        with image.open("wb") as file:
            file.truncate(_IMAGE_BYTES)
        _run("mkfs.ext4", "-q", "-F", image)
        for index in range(rounds):
            mode = [*MODES][index % len(MODES)]
            try:
                _round(image, mount, mode, rng.uniform(0, _LIFE), large=index % 4 == 3)
            except Exception as error:
                raise LostError(f"seed {seed}, round {index}, {mode}: {error}") from error
    return f"{rounds} power losses of an ext4"


def _round(image, mount, mode, seconds, *, large):
    run = mount / mode
    _run("mount", "-o", "loop", image, mount)
    try:
        before = good_steps(run)
        reported = []
        writer = threading.Thread(target=_save_forever, args=(run, mode, before, reported, large))
        writer.start()
        time.sleep(seconds)
        _stop(mount)
        said = list(reported)
        writer.join()
    finally:
        _run("umount", mount)
    _run("mount", "-o", "loop", image, mount)
    try:
        check_run(run, before, said, MODES[mode]["keep"])
        if not large:
            shutil.rmtree(run, ignore_errors=len(good_steps(run)) < 2)
    finally:
        _run("umount", mount)


def _save_forever(run, mode, before, reported, large):
    step = max(before, default=0) + 1
    manager = CheckpointManager(run, **MODES[mode])
    try:
        while True:
            manager.save(step, state_of(step, large=large))
            if "async_" not in MODES[mode] or step - 1 > max(before, default=0):
                reported.append(step - 1 if "async_" in MODES[mode] else step)
            step += 1
    except CheckpointError:  # the power went
        return
    finally:
        with suppress(CheckpointError):
            manager.close()


def _leave_mount_namespace():
    """Let what this process mounts be seen by it alone, and go with it."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "cannot have mounts of its own")
    _run("mount", "--make-rprivate", "/")


def _stop(mount):
    descriptor = os.open(mount, os.O_RDONLY)
    fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING))
    os.close(descriptor)


def _run(*command):
    subprocess.run(command, check=True)
