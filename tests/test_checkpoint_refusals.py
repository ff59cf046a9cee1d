"""Where the system refuses, there is one clear error, and the earlier checkpoints are whole."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from torture import calls, faults
from torture.states import check_state, good_steps, state_of

from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError


@pytest.mark.parametrize(
    ("mode", "number", "for_good"),
    [
        ("sync", errno.ENOSPC, True),
        ("async", errno.ENOSPC, False),
        ("incremental", errno.EDQUOT, True),
        ("retention", errno.EIO, False),
    ],
)
def test_each_call_that_the_system_refuses_is_one_clear_error(mode, number, for_good):
    assert faults.fail_each_call(mode, number, for_good=for_good) > 15


SMALL_DISK = """
import sys
from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError
from torture.states import good_steps, state_of
manager = CheckpointManager(sys.argv[1], keep=None)
manager.save(1, state_of(1))
try:
    manager.save(2, state_of(2, large=True))
except CheckpointError as error:
    print(error)
manager.save(3, state_of(3))
print(good_steps(sys.argv[1]))
"""


def in_a_mount(command, code, path):
    """Run a program after a mount that only it sees; skip where that is not allowed."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    shell = f'{command} && exec "$0" -c "$1" "$2"'
    return subprocess.run(
        ["unshare", "-rm", "sh", "-c", shell, sys.executable, code, str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        check=True,
    ).stdout.splitlines()


def test_a_disk_that_is_full_is_one_clear_error(tmp_path):
    printed = in_a_mount(f"mount -t tmpfs -o size=4m none {tmp_path}", SMALL_DISK, tmp_path)
    message = (
        f"cannot write checkpoint {tmp_path}/step-00000002: No space left on device; nothing was left there"
    )
    assert printed == [message, "[1, 3]"]


READ_ONLY = """
import sys
from helix_kernel.checkpoint import CheckpointManager
from helix_kernel.errors import CheckpointError
from torture.states import good_steps, state_of
try:
    CheckpointManager(sys.argv[1]).save(2, state_of(2))
except CheckpointError as error:
    print(error)
print(good_steps(sys.argv[1]))
"""


def test_a_disk_that_is_read_only_is_one_clear_error_and_can_be_read(tmp_path):
    with CheckpointManager(tmp_path) as manager:
        manager.save(1, state_of(1))
    mount = f"mount --bind {tmp_path} {tmp_path} && mount -o remount,bind,ro {tmp_path}"
    printed = in_a_mount(mount, READ_ONLY, tmp_path)
    assert printed == [f"cannot write checkpoints to {tmp_path}: Read-only file system", "[1]"]


FORBIDDEN = """
import os, sys
from helix_kernel.checkpoint import Checkpoint, CheckpointManager, load, resolve
from helix_kernel.errors import CheckpointError
from torture.states import good_steps, state_of
run, step = sys.argv[1], sys.argv[1] + "/step-00000001"
if not os.geteuid():
    os.seteuid(65534)
def attempt(action):
    try:
        print("done", action())
    except CheckpointError as error:
        print(error)
for action in (
    lambda: CheckpointManager(run).save(2, state_of(2)),
    lambda: CheckpointManager(run).steps(),
    lambda: CheckpointManager(run).latest(),
    lambda: CheckpointManager(run).load(1),
    lambda: resolve(run),
    lambda: load(step),
):
    attempt(action)
"""


@pytest.mark.parametrize(
    "what", ["", "step-00000001", "step-00000001/manifest.json", "step-00000001/data-00000.bin"]
)
def test_what_may_not_be_read_is_one_clear_error_for_each_thing_tried(what):
    with tempfile.TemporaryDirectory() as folder:  # not pytest's, which only its owner may enter
        Path(folder).chmod(0o777)
        run = Path(folder, "run")
        with CheckpointManager(run) as manager:
            manager.save(1, state_of(1))
        (run / what).chmod(0)
        printed = subprocess.run(
            [sys.executable, "-c", FORBIDDEN, str(run)],
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
            check=False,
        )
        (run / what).chmod(0o700)
        assert printed.returncode == 0, printed.stderr
        lines = printed.stdout.splitlines()
        assert len(lines) == 6
        assert all("ermission denied" in lines[index] for index in (3, 4, 5)), lines
        assert good_steps(run) == [1]


def test_a_directory_that_is_removed_under_a_writer_is_an_error_and_the_next_save_makes_it_anew(tmp_path):
    with CheckpointManager(tmp_path / "run") as manager:
        manager.save(1, state_of(1))
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(CheckpointError, match=r"run cannot be reached any more .*save again"):
            manager.save(2, state_of(2))
        manager.save(3, state_of(3))
    assert good_steps(tmp_path / "run") == [3]


@pytest.mark.parametrize("index", range(1, 16, 2))
def test_a_directory_that_is_removed_in_the_middle_of_a_save_is_one_clear_error(tmp_path, index):
    run, left = tmp_path / "run", [index]
    manager = CheckpointManager(run)
    manager.save(1, state_of(1))

    def remove(name, real, *args, **kwargs):
        if calls.below(run, name, args, kwargs):
            left[0] -= 1
            if not left[0]:
                shutil.move(run, tmp_path / "elsewhere")
        return real(*args, **kwargs)

    with (
        calls.intercepted(remove),
        pytest.raises(CheckpointError, match=r"cannot write checkpoint .*No such file"),
    ):
        manager.save(2, state_of(2))
    assert good_steps(tmp_path / "elsewhere") == [1]


def test_a_disk_that_takes_only_part_of_each_write_gets_the_rest(tmp_path):
    def part(name, real, *args, **kwargs):
        if name == "pwrite" and len(args[1]) > 5000 and calls.below(tmp_path, name, args, kwargs):
            return real(args[0], args[1][: len(args[1]) // 2 // 4096 * 4096], args[2])
        return real(*args, **kwargs)

    with calls.intercepted(part), CheckpointManager(tmp_path) as manager:
        manager.save(1, state_of(1, large=True))
    assert good_steps(tmp_path) == [1]


def test_a_reader_beside_a_writer_that_keeps_one_step_sees_whole_states_or_one_clear_error(tmp_path):
    done, seen = threading.Event(), []
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(1, state_of(1))

    def read():
        while not done.is_set():
            try:
                state = CheckpointManager(tmp_path).load()
            except CheckpointError as error:
                seen.append(str(error))
            else:
                check_state(state, state["step"])
                seen.append(state["step"])

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(2, 30):
        manager.save(step, state_of(step))
    done.set()
    reader.join()
    manager.close()
    steps = [step for step in seen if isinstance(step, int)]
    assert steps == sorted(steps)
    assert steps
    assert all("damaged" not in error for error in seen if isinstance(error, str)), seen
    assert np.mean([isinstance(step, int) for step in seen]) > 0.5


def test_damage_of_the_newest_step_is_not_taken_over_by_an_incremental_one(tmp_path, caplog):
    with CheckpointManager(tmp_path, keep=1, incremental=True) as manager:
        pack = manager.save(1, state_of(1)) / "data-00000.bin"
    content = bytearray(pack.read_bytes())
    content[-5000] ^= 1  # of the array that never changes
    pack.write_bytes(content)
    with CheckpointManager(tmp_path, keep=1, incremental=True) as manager:
        manager.save(2, state_of(2))
    assert good_steps(tmp_path) == [2]
    assert "nothing of step 1 is taken over" in caplog.text


def test_a_step_that_cannot_be_removed_is_a_warning_and_the_next_save_tries_again(tmp_path, caplog):
    refused = []

    def refuse(name, real, *args, **kwargs):
        if name == "rename" and "step-00000001" in str(args[0]) and not refused:
            refused.append(args)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **kwargs)

    with CheckpointManager(tmp_path, keep=1) as manager:
        manager.save(1, state_of(1))
        with calls.intercepted(refuse):
            manager.save(2, state_of(2))
        assert "step 2 is saved, but others stay that need not: cannot remove checkpoint" in caplog.text
        assert good_steps(tmp_path) == [1, 2]
        manager.save(3, state_of(3))
    assert good_steps(tmp_path) == [3]
