"""Saving in the background, saving only what changed, one writer a directory, and what stays."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from helix_kernel.checkpoint import Checkpoint, CheckpointManager, Retention, load, load_into, save
from helix_kernel.errors import ArgumentError, CheckpointError, IncompatibleCheckpointError


def state(step):
    return {"w": np.full(3, step), "step": step}


def test_what_changes_after_an_async_save_is_not_in_it(tmp_path, monkeypatch):
    from helix_kernel.checkpoint import manager as module

    go, write = threading.Event(), module.write_step

    def held(*arguments, **options):
        assert go.wait(60)
        write(*arguments, **options)

    monkeypatch.setattr(module, "write_step", held)
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3).T,
        "b": torch.ones(3, dtype=torch.bfloat16),
        "c": np.int8(4),
    }
    with CheckpointManager(tmp_path, async_=True) as manager:
        manager.save(1, {**tensors, "tied": tensors["a"]})
        assert manager.steps() == []
        tensors["a"] += 100
        tensors["b"].zero_()
        go.set()
    back = load(tmp_path / "step-00000001", as_torch=True)
    assert back["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert back["tied"] is back["a"]
    assert back["b"].tolist() == [1, 1, 1]
    assert back["c"] == 4


def test_many_async_saves_are_each_whole(tmp_path):
    weight = torch.zeros(300_000)
    with CheckpointManager(tmp_path, async_=True, keep=None) as manager:
        for step in range(1, 6):
            weight += 1
            manager.save(step, {"w": weight, "v": weight * 2})
    for step in range(1, 6):
        back = manager.load(step)
        assert (back["w"] == step).all()
        assert (back["v"] == 2 * step).all()


def test_an_error_in_the_background_comes_up_at_the_next_step(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    manager = CheckpointManager(tmp_path, async_=True)
    manager.save(1, state(1))
    manager.wait()
    monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", full)
    manager.save(2, state(2))
    manager._writing.exception()
    with pytest.raises(CheckpointError, match="No space left on device; nothing was left"):
        manager.poll()
    manager.poll()
    assert manager.latest() == 1
    manager.close()


def inodes(path):
    return {pack.stat().st_ino for pack in path.glob("*.bin")}


def test_what_did_not_change_is_not_written_again(tmp_path):
    rng = np.random.default_rng(0)
    frozen, adapter = rng.random(50_000), rng.integers(0, 9, 100)
    with CheckpointManager(tmp_path, keep=2, incremental=True) as manager:
        paths = []
        for step in range(1, 5):
            adapter = adapter + 1
            paths.append(manager.save(step, {"frozen": frozen, "adapter": adapter, "none": np.zeros((0, 2))}))
    assert manager.steps() == [3, 4]
    assert len(inodes(paths[2]) & inodes(paths[3])) == 1
    own = paths[3] / "data-00000.bin"
    assert own.stat().st_size < 2000
    for path, expected in zip(paths[2:], (adapter - 1, adapter), strict=True):
        with Checkpoint.open(path) as checkpoint:
            checkpoint.verify()
        back = load(path)
        np.testing.assert_array_equal(back["frozen"], frozen)
        np.testing.assert_array_equal(back["adapter"], expected)


def test_a_pack_of_which_little_is_used_is_not_kept_alive(tmp_path):
    with CheckpointManager(tmp_path, incremental=True) as manager:
        first = manager.save(1, {"large": np.zeros(50_000), "small": np.ones(10)})
        second = manager.save(2, {"large": np.ones(50_000), "small": np.ones(10)})
    assert not inodes(first) & inodes(second)


def test_where_files_cannot_be_linked_everything_is_written(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    with CheckpointManager(tmp_path, incremental=True) as manager:
        manager.save(1, {"w": np.ones(1000)})
        manager.save(2, {"w": np.ones(1000)})
    assert "is written anew, since it cannot be linked: Operation not permitted" in caplog.text
    assert manager.load(2)["w"].sum() == 1000


def test_one_bit_makes_an_array_another(tmp_path):
    weight = np.zeros(3_000_000, np.float32)
    with CheckpointManager(tmp_path, incremental=True) as manager:
        manager.save(1, {"w": weight})
        weight[2_000_000] = -0.0
        second = manager.save(2, {"w": weight})
    assert np.signbit(load(second)["w"][2_000_000])


def test_a_second_writer_is_refused_by_name_and_a_dead_one_hinders_nobody(tmp_path):
    code = (
        "import sys; from helix_kernel.checkpoint import CheckpointManager\n"
        "manager = CheckpointManager(sys.argv[1]); manager.save(1, {'x': 1}); print('saved', flush=True)\n"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout.readline() == b"saved\n"
        mine = CheckpointManager(tmp_path)
        with pytest.raises(
            CheckpointError, match=f"has a writer already: process {other.pid} on .* since 20"
        ):
            mine.save(2, {"x": 2})
    finally:
        other.kill()
        other.communicate()
    mine.save(2, {"x": 2})
    assert mine.steps() == [1, 2]
    assert json.loads((tmp_path / ".writer.lock").read_text())["pid"] != other.pid
    with pytest.raises(CheckpointError, match="has a writer already"):
        CheckpointManager(tmp_path).save(3, {})
    mine.close()
    CheckpointManager(tmp_path).save(3, {})


METRICS = {10: 3.0, 20: 1.0, 30: 2.0, 40: float("nan"), 50: 5.0, 60: 4.0}


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (Retention(last=1), [60]),
        (Retention(last=2, every=20), [20, 40, 50, 60]),
        (Retention(last=1, best=2, metric="loss"), [20, 30, 60]),
        (Retention(last=1, best=1, metric="loss", mode="max"), [50, 60]),
        (Retention(last=1, best=1, metric="accuracy"), [60]),
        (Retention(last=None, best=1, metric="loss"), [10, 20, 30, 40, 50, 60]),
    ],
)
def test_retention_keeps_the_last_the_round_and_the_best(tmp_path, keep, stay):
    with CheckpointManager(tmp_path, keep=keep) as manager:
        for step, loss in METRICS.items():
            manager.save(step, {}, attributes={"metrics": {"loss": loss}})
    assert manager.steps() == stay


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"last": 0}, "keep is 0; allowed is at least 1"),
        ({"every": 0}, "every is 0"),
        ({"best": 2}, "best is 2 and metric is None"),
        ({"metric": "loss"}, "best is 0 and metric is 'loss'"),
        ({"best": 1, "metric": "x", "mode": "most"}, "mode is 'most'; allowed are 'min' and 'max'"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error(options, message):
    with pytest.raises(ArgumentError, match=message):
        Retention(**options)


def test_arrays_are_read_into_memory_that_exists(tmp_path):
    saved = {
        "model": {"a.w": torch.randn(3, 4), "b": torch.randn(5).bfloat16()},
        "opt": [np.arange(6.0).reshape(2, 3), torch.ones(2, 3)],
        "step": 4,
    }
    save(tmp_path / "step", saved)
    target = {
        "model": {"a.w": torch.zeros(4, 3).T, "b": torch.zeros(5, dtype=torch.bfloat16)},
        "opt": [np.zeros((2, 3)), torch.zeros(2, 3)],
        "step": 0,
    }
    load_into(tmp_path / "step", target)
    assert torch.equal(target["model"]["a.w"], saved["model"]["a.w"])
    assert torch.equal(target["model"]["b"], saved["model"]["b"])
    np.testing.assert_array_equal(target["opt"][0], saved["opt"][0])
    only = {"model": {"a.w": torch.zeros(3, 4), "b": torch.zeros(5, dtype=torch.bfloat16)}}
    load_into(tmp_path / "step", only, only="model")
    assert torch.equal(only["model"]["a.w"], saved["model"]["a.w"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"w": np.zeros(4, np.float32)}, r"w: float64 \(3,\) in the checkpoint, float32 \(4,\) in the state"),
        ({"wx": np.zeros(3)}, "w is in the checkpoint only; nearest of those in the state only: wx"),
        ({"w": np.zeros(3), "v": np.zeros(1)}, "v is in the state only"),
    ],
)
def test_memory_that_does_not_fit_is_named_and_left_as_it_is(tmp_path, target, message):
    save(tmp_path / "step", {"w": np.ones(3)})
    with pytest.raises(IncompatibleCheckpointError, match=message):
        load_into(tmp_path / "step", target)
    assert not any(array.any() for array in target.values())


def test_memory_that_is_shared_takes_only_arrays_that_are_equal(tmp_path):
    shared = np.zeros(3)
    save(tmp_path / "equal", {"a": np.ones(3), "b": np.ones(3)})
    load_into(tmp_path / "equal", {"a": shared, "b": shared})
    assert shared.tolist() == [1, 1, 1]
    save(tmp_path / "other", {"a": np.ones(3), "b": np.zeros(3)})
    with pytest.raises(IncompatibleCheckpointError, match="b shares its memory with a in the state"):
        load_into(tmp_path / "other", {"a": shared, "b": shared})


@pytest.mark.parametrize("verify", [True, False])
def test_mapped_arrays_are_those_saved_and_stay_after_their_step_is_gone(tmp_path, verify):
    saved = {
        "large": np.random.default_rng(0).random(2_000_000),
        "small": np.arange(5),
        "none": np.ones((0, 2)),
    }
    path = CheckpointManager(tmp_path).save(1, saved)
    mapped = load(path, mmap=True, verify=verify)
    mapped["small"][0] = 7
    for file in path.iterdir():
        file.unlink()
    np.testing.assert_array_equal(mapped["large"], saved["large"], strict=True)
    assert mapped["small"].tolist() == [7, 1, 2, 3, 4]
    assert mapped["none"].shape == (0, 2)


def test_mapping_verified_finds_damage(tmp_path):
    save(tmp_path / "step", {"w": np.zeros(2_000_000)})
    pack = tmp_path / "step/data-00000.bin"
    with pack.open("r+b") as file:
        file.seek(5_000_000)
        file.write(b"x")
    with pytest.raises(CheckpointError, match="array 'w', were changed"):
        load(tmp_path / "step", mmap=True)
    assert load(tmp_path / "step", mmap=True, verify=False)["w"].any()


def test_an_open_checkpoint_survives_retention(tmp_path):
    manager = CheckpointManager(tmp_path, keep=1)
    with Checkpoint.open(manager.save(1, state(1))) as checkpoint:
        manager.save(2, state(2))
        assert manager.steps() == [2]
        assert checkpoint["w"][:].tolist() == [1, 1, 1]
