"""kill -9 at random moments of saves, and before each single system call of one save."""

import os
import shutil
import signal
import struct
import tempfile
import time
from pathlib import Path

import numpy as np

from helix_kernel.checkpoint import CheckpointManager
from torture.calls import below, intercepted
from torture.states import LostError, good_steps, state_of

MODES = {
    "sync": {"keep": 2},
    "async": {"keep": 2, "async_": True},
    "incremental": {"keep": 2, "incremental": True},
    "async incremental": {"keep": 2, "async_": True, "incremental": True},
    "retention": {"keep": 1},
    "replace": {"keep": 3},
}
LIFE = 0.12
"""Seconds that a writer has at most before it is killed; it makes several saves in it."""


def run_rounds(rounds, seed):
    """Kill writers of all modes in turn, so many times in all."""
    rng = np.random.default_rng(seed)
    root = Path(tempfile.mkdtemp())
    killed, spoilt = [], set()
    for index in range(rounds):
        mode = [*MODES][index % len(MODES)]
        large = (index // len(MODES)) % 4 == 3
        try:
            killed.append(_round(root / mode, mode, rng.uniform(0, LIFE), spoilt, large=large))
        except Exception as error:
            raise LostError(f"seed {seed}, round {index}, {mode}, in {root / mode}: {error}") from error
    shutil.rmtree(root)
    return f"{rounds} writers killed, {sum(killed)} of them in the middle of a save"


def run_calls(mode):
    """Kill a writer before its first system call that changes files, its second, and so on until it ends."""
    root = Path(tempfile.mkdtemp())
    for n_calls in range(1000):
        run = root / str(n_calls)
        with CheckpointManager(run) as manager:
            manager.save(1, state_of(1))
            if mode == "replace":
                manager.save(2, state_of(2))
                _damage(manager, 2)
        status = _wait(_fork(lambda run=run, n=n_calls: _save_until_call(run, MODES[mode], n)))
        check_run(run, [1], [], MODES[mode]["keep"], damaged=[2] if mode == "replace" else [])
        shutil.rmtree(run)
        if not os.WIFSIGNALED(status):
            if os.waitstatus_to_exitcode(status):
                raise LostError(f"{mode}: the writer failed by itself")
            root.rmdir()
            return n_calls
    raise LostError(f"{mode}: a save has no end")


def check_run(directory, before, reported, keep, damaged=()):
    """Return the good steps; raise `LostError` unless a run is as a killed writer may leave it.

    Args:
        directory: The run's.
        before: The steps that were good before.
        reported: The steps of which the writer said that they were saved.
        keep: How many steps stay, at least.
        damaged: Those that were damaged before.
    """
    good = good_steps(directory, damaged)
    newest = max(reported, default=None)
    if newest is not None and newest not in good and sum(step > newest for step in good) < keep:
        raise LostError(f"step {newest} was reported as saved; good are {good}")
    if len(good) < min(len(before), keep):
        raise LostError(f"{len(before)} steps were good, {before}; now {good}")
    if CheckpointManager(directory).latest() != max(good, default=None):
        raise LostError(f"latest() is {CheckpointManager(directory).latest()}; good are {good}")
    others = {path.name[:5] for path in Path(directory).glob("*")} - {"step-", ".heli", ".writ"}
    if others:
        raise LostError(f"the run holds {others}")
    return good


def _round(directory, mode, seconds, spoilt, *, large):
    """Let a writer live so long; return whether it died in the middle of a save.

    In the mode "replace", the writer saves a step anew that `spoilt` holds: one that was damaged.
    """
    manager = CheckpointManager(directory)
    damaged = spoilt if mode == "replace" else set()
    before = good_steps(directory, damaged)
    if mode == "replace" and not damaged and len(before) > 1:
        damaged.add(before.pop())
        _damage(manager, max(damaged))
    reading, writing = os.pipe()
    first = min(damaged) if damaged else max(before, default=0) + 1
    writer = _fork(lambda: _save_forever(directory, MODES[mode], first, writing, large=large))
    os.close(writing)
    os.read(reading, 8)  # it is about to save
    time.sleep(seconds)
    os.kill(writer, signal.SIGKILL)
    status = _wait(writer)
    if not os.WIFSIGNALED(status):
        raise LostError(f"the writer ended by itself, with status {status}")
    said = b"".join(iter(lambda: os.read(reading, 4096), b""))
    os.close(reading)
    reported = [step for (step,) in struct.iter_unpack("q", said) if step]
    in_a_save = any(path.name.startswith(".helix-tmp-") for path in directory.glob(".helix*"))
    good = check_run(directory, before, reported, MODES[mode]["keep"], damaged)
    damaged &= {*manager.steps()} - {*good}  # the others were saved anew, and may have gone since
    return in_a_save


def _save_forever(directory, options, step, report, *, large):
    manager = CheckpointManager(directory, **options)
    os.write(report, struct.pack("q", 0))
    while True:
        manager.save(step, state_of(step, large=large))
        durable = step - 1 if "async_" in options else step
        os.write(report, struct.pack("q", durable if durable >= 1 else 0))
        step += 1


def _save_until_call(run, options, n_calls):
    left = [n_calls]

    def hook(name, real, *args, **kwargs):
        if below(run, name, args, kwargs):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
        return real(*args, **kwargs)

    with intercepted(hook), CheckpointManager(run, **options) as manager:
        manager.save(2, state_of(2))


def _fork(work):
    process = os.fork()
    if process:
        return process
    try:
        work()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the child must end here, whatever happens
        os.write(2, f"{error!r}\n".encode())
        os._exit(1)


def _wait(process):
    return os.waitpid(process, 0)[1]


def _damage(manager, step):
    pack = manager.path(step) / "data-00000.bin"
    with pack.open("r+b") as file:
        file.write(b"?")
