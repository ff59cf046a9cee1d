"""What was reported as saved outlives kill -9 and the loss of power; what is there is whole."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))
from torture import disk, ext4, power
from torture.disk import POLICIES, after_power_loss
from torture.recording import Operation
from torture.states import LostError

from helix_kernel.checkpoint import directory, durable, pack

SEED = 0


def torture(*arguments):
    """Run a harness in a process of its own, since it forks, mounts or limits its memory."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torture", *map(str, arguments), "--seed", str(SEED)]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_killed_at_random_moments_in_every_mode_nothing_is_lost_or_torn():
    assert "24 writers killed" in torture("kills", "--rounds", 24)


@pytest.mark.slow
def test_killed_before_each_system_call_of_a_save_nothing_is_lost_or_torn():
    assert "killed before each" in torture("calls")


IN_PLACE = """
from contextlib import contextmanager
from helix_kernel.checkpoint import directory
from torture import kills

@contextmanager
def in_place(path):
    path.mkdir(parents=True)
    yield path

directory.new_directory = in_place
kills.run_calls("sync")
"""


def test_of_a_writer_that_writes_in_place_a_kill_shows_what_is_half_written(python):
    with pytest.raises(AssertionError, match="LostError: step 2 is there but cannot be loaded"):
        python(IN_PLACE, Path(__file__).parent)


@pytest.fixture(scope="module", params=[*power.MODES, "plain"])
def log(request, tmp_path_factory):
    """What saving in one mode asks of the file system."""
    root = tmp_path_factory.mktemp("recorded")
    return power.record_plain(root) if request.param == "plain" else power.record(root, request.param)


@pytest.mark.parametrize("policy", POLICIES)
def test_no_loss_of_power_takes_what_was_reported_as_saved(log, policy):
    rng = np.random.default_rng(SEED)
    for cut in range(0, len(log) + 1, 7):
        power.check_cut(log[:cut], policy, rng, go_on=cut % 5 == 0)


def _nothing(*_):
    """Leave something out."""


def _leave_out_the_packs_sync(patch):
    patch.setattr(pack, "sync_descriptor", _nothing)


def _leave_out_the_manifests_sync(patch):
    patch.setattr(directory, "write_file", lambda path, content: path.write_bytes(content) and None)


def _leave_out_the_sync_of_what_is_in_a_step(patch):
    sync = durable._sync
    patch.setattr(durable, "_sync", lambda path: None if ".helix-tmp-" in str(path) else sync(path))


def _leave_out_the_sync_of_where_the_step_is(patch):
    sync = durable._sync
    patch.setattr(durable, "_sync", lambda path: sync(path) if ".helix-tmp-" in str(path) else None)


@pytest.mark.parametrize(
    "leave_out",
    [
        _leave_out_the_packs_sync,
        _leave_out_the_manifests_sync,
        _leave_out_the_sync_of_what_is_in_a_step,
        _leave_out_the_sync_of_where_the_step_is,
    ],
)
def test_without_any_one_sync_the_harness_finds_a_loss(tmp_path, monkeypatch, leave_out):
    leave_out(monkeypatch)
    log = power.record_plain(tmp_path)
    rng = np.random.default_rng(SEED)
    assert any(_is_lost(log[:cut], policy, rng) for policy in POLICIES for cut in range(len(log) + 1))


def _is_lost(log, policy, rng):
    try:
        power.check_cut(log, policy, rng)
    except LostError:
        return True
    return False


def test_a_disk_keeps_what_was_synced_and_perhaps_the_rest():
    log = [
        Operation("create", 1, 0, "a"),
        Operation("write", 1, offset=0, content=b"x" * 1024),
        Operation("sync", 1),
        Operation("sync", 0),
        Operation("create", 2, 0, "b"),
        Operation("write", 1, offset=512, content=b"y" * 512),
        Operation("rename", 1, 0, "a", to=(0, "c")),
    ]
    found = set()
    for policy in POLICIES.values():
        for seed in range(40):
            left = after_power_loss(log, policy, np.random.default_rng(seed))
            names = left.directories[0]
            assert (names.get("a") == 1) != (names.get("c") == 1)
            assert left.files[1][:512] == b"x" * 512
            found.add((*sorted(names), bytes(left.files[1][512:513])))
    assert found == {
        (*names, byte) for names in (["a"], ["c"], ["a", "b"], ["b", "c"]) for byte in (b"x", b"y")
    }


def test_space_that_was_reserved_and_never_written_reads_as_zeros():
    log = [
        Operation("create", 1, 0, "a"),
        Operation("reserve", 1, offset=0, content=1000),
        Operation("sync", 0),
    ]
    kept = after_power_loss(log, POLICIES["everything"], np.random.default_rng(SEED))
    assert kept.files[1] == bytes(1000)
    assert disk.SECTOR == 512


@pytest.mark.slow
@pytest.mark.skipif(ext4.missing() is not None, reason=f"no ext4 of our own: {ext4.missing()}")
def test_a_real_ext4_that_loses_its_cache_in_a_save_keeps_what_was_reported():
    assert "24 power losses" in torture("ext4", "--rounds", 24)
