"""Power loss: the log of a run of saves, cut anywhere, on every disk that may be found afterwards."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np

from helix_kernel.checkpoint import CheckpointManager, pack, save
from torture.disk import POLICIES, Disk, after_power_loss
from torture.recording import Recording
from torture.states import LostError, check_state, good_steps, state_of

MODES = {
    "sync": {"keep": None},
    "async": {"keep": 2, "async_": True},
    "incremental": {"keep": 2, "incremental": True},
    "retention": {"keep": 1},
    "replace": {"keep": None},
}
N_STEPS = 4
_RUN = "run/checkpoints"
_DAMAGED = "step 2 was damaged"


def record(root, mode):
    """Save some steps below an empty directory and return the log; what save() promised is in it."""
    recording = Recording(root)
    with _small_blocks(), recording.recording():
        if mode == "replace":
            CheckpointManager(Path(root, _RUN), keep=None).save(2, state_of(2))
            recording.said(_DAMAGED)
            _damage(Path(root, _RUN, "step-00000002/data-00000.bin"))
        with CheckpointManager(Path(root, _RUN), **MODES[mode]) as manager:
            for step in range(1, N_STEPS + 1):
                manager.save(step, state_of(step))
                recording.said(step - 1 if "async_" in MODES[mode] else step)
            manager.wait()
            recording.said(N_STEPS)
    _check_log(recording)
    return recording.operations


def record_plain(root):
    """Save one checkpoint by `save` below directories that do not exist, and return the log."""
    recording = Recording(root)
    with _small_blocks(), recording.recording():
        save(Path(root, _RUN, "step-00000001"), state_of(1))
        recording.said(1)
    _check_log(recording)
    return recording.operations


def check_cut(operations, policy, rng, *, go_on=False):
    """Raise `LostError` if the power, gone after these operations, could take what was promised.

    Args:
        operations: A log, cut anywhere.
        policy: Name in `POLICIES`.
        rng: Chooses what survives.
        go_on: Save another step on that disk too.
    """
    with tempfile.TemporaryDirectory() as root:
        after_power_loss(operations, POLICIES[policy], rng).write_out(root)
        run = Path(root, _RUN)
        going = _going(operations)
        good = good_steps(run, damaged=going)
        lost = _promised(operations) - set(good)
        if lost:
            raise LostError(f"steps {sorted(lost)} were reported as saved, and are lost")
        manager = CheckpointManager(run)
        if manager.latest() != max(good, default=None):
            raise LostError(f"latest() is {manager.latest()} of {good}")
        if go_on:
            check_state(_save_and_load(manager, N_STEPS + 5), N_STEPS + 5)


def run_rounds(rounds, seed):
    """Cut the logs of all modes at random points, so many times."""
    rng = np.random.default_rng(seed)
    logs = {}
    for mode in (*MODES, "plain"):
        root = tempfile.mkdtemp()
        logs[mode] = record_plain(root) if mode == "plain" else record(root, mode)
        shutil.rmtree(root)
    for index in range(rounds):
        mode, policy = str(rng.choice([*logs])), str(rng.choice([*POLICIES]))
        cut = int(rng.integers(len(logs[mode]) + 1))
        try:
            check_cut(logs[mode][:cut], policy, rng, go_on=index % 10 == 0)
        except Exception as error:
            raise LostError(
                f"seed {seed}, round {index}: {mode}, {policy}, cut after {cut} operations: {error!r}"
            ) from error
    return f"{rounds} cuts of {sum(map(len, logs.values()))} operations"


def _promised(operations):
    """Return the steps that were reported and whose removal had not begun."""
    said = {operation.content for operation in operations if operation.kind == "said"}
    return said - _going(operations) - {0, _DAMAGED}


def _going(operations):
    """Return the steps that were damaged on purpose or are being removed, and not yet saved anew."""
    going = set()
    for operation in operations:
        if operation.kind == "said":
            going = going | {2} if operation.content == _DAMAGED else going - {operation.content}
        elif operation.kind == "rename" and operation.name.startswith("step-"):
            going.add(int(operation.name.removeprefix("step-")))
    return going


def _save_and_load(manager, step):
    manager.save(step, state_of(step))
    return manager.load(step)


def _check_log(recording):
    """Raise unless the log, carried out whole, gives what is on the real disk: nothing went past it."""
    disk = Disk()
    for operation in recording.operations:
        disk.apply(operation)
    with tempfile.TemporaryDirectory() as replayed:
        disk.write_out(replayed)
        assert _files(replayed) == _files(recording.root)


def _files(root):
    return {path.relative_to(root): path.is_file() and path.read_bytes() for path in Path(root).rglob("*")}


def _damage(path):
    """Change a byte of a file, on the disk too."""
    descriptor = os.open(path, os.O_WRONLY)
    os.pwrite(descriptor, b"x", 1)
    os.fsync(descriptor)
    os.close(descriptor)


@contextmanager
def _small_blocks():
    """Let packs be written in many blocks, by one thread, so that a log is the same every time."""
    with mock.patch.object(pack, "_BLOCK", 8192), mock.patch.object(pack, "_BUFFERS", 1):
        yield
