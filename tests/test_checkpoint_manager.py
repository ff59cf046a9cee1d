"""Which checkpoints of a run there are, which one is meant, and which may go."""

import numpy as np
import pytest

from helix_kernel.checkpoint import CheckpointManager, load, resolve
from helix_kernel.errors import ArgumentError, CheckpointError


def state(step):
    return {"w": np.full(3, step), "step": step}


def truncate(path):
    pack = path / "data-00000.bin"
    pack.write_bytes(pack.read_bytes()[:10])


def test_steps_are_saved_listed_and_loaded(tmp_path):
    manager = CheckpointManager(tmp_path / "checkpoints")
    assert (manager.steps(), manager.latest()) == ([], None)
    for step in (0, 100, 20):
        assert manager.save(step, state(step), attributes={"n": step}).name == f"step-{step:08d}"
    assert manager.steps() == [0, 20, 100]
    assert manager.latest() == 100
    assert manager.load()["step"] == 100
    assert manager.load(20)["w"].tolist() == [20, 20, 20]
    assert manager.load(0, as_torch=True)["w"].tolist() == [0, 0, 0]


def test_only_the_newest_stay(tmp_path):
    manager = CheckpointManager(tmp_path, keep=2)
    for step in range(5):
        manager.save(step, state(step))
    assert manager.steps() == [3, 4]
    assert {path.name for path in tmp_path.glob("[!.]*")} == {"step-00000003", "step-00000004"}
    assert not list(tmp_path.glob(".helix-tmp-*"))


def test_keep_none_keeps_all(tmp_path):
    manager = CheckpointManager(tmp_path, keep=None)
    for step in range(5):
        manager.save(step, {})
    assert manager.steps() == [0, 1, 2, 3, 4]


def test_no_step_goes_where_the_new_one_cannot_be_saved(tmp_path, monkeypatch):
    manager = CheckpointManager(tmp_path, keep=1)
    manager.save(1, state(1))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        manager.save(2, state(2))
    assert manager.steps() == [1]
    assert manager.latest() == 1


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_retention_never_takes_the_only_good_step(tmp_path, keep):
    with CheckpointManager(tmp_path, keep=None) as manager:
        for step in (300, 400, 500):
            truncate(manager.save(step, state(step)))
    manager = CheckpointManager(tmp_path, keep=keep)
    manager.save(200, state(200))
    assert manager.latest() == 200
    assert len(manager.steps()) == keep


def test_latest_passes_over_damage_and_says_so(tmp_path, caplog):
    manager = CheckpointManager(tmp_path)
    manager.save(1, state(1))
    truncate(manager.save(2, state(2)))
    assert manager.latest() == 1
    assert "passed over step 2" in caplog.text
    assert "array 'w'" in caplog.text
    assert manager.load()["step"] == 1


def test_a_damaged_step_is_replaced_and_a_good_one_is_not(tmp_path):
    manager = CheckpointManager(tmp_path)
    truncate(manager.save(2, state(2)))
    manager.save(2, state(2))
    assert manager.latest() == 2
    with pytest.raises(CheckpointError, match="step-00000002 exists and is good"):
        manager.save(2, state(3))
    assert manager.load(2)["w"].tolist() == [2, 2, 2]


def test_a_step_that_is_not_there_is_named_with_those_that_are(tmp_path):
    manager = CheckpointManager(tmp_path)
    manager.save(2, {})
    with pytest.raises(CheckpointError, match=r"has no step 3; it has \[2\]"):
        manager.load(3)


@pytest.mark.parametrize("keep", [0, -1])
def test_keep_must_leave_a_step(tmp_path, keep):
    with pytest.raises(ArgumentError, match=f"keep is {keep}; allowed is at least 1"):
        CheckpointManager(tmp_path, keep=keep)


def test_a_negative_step_is_an_error(tmp_path):
    with pytest.raises(ArgumentError, match="step is -1; allowed is at least 0"):
        CheckpointManager(tmp_path).save(-1, {})


@pytest.mark.parametrize("inside", ["", "checkpoints"])
def test_a_path_means_a_step_or_the_newest_good_one_of_a_run(tmp_path, inside):
    manager = CheckpointManager(tmp_path / inside)
    first, second, third = (manager.save(step, state(step)) for step in (1, 2, 3))
    truncate(third)
    assert resolve(tmp_path) == second
    assert resolve(str(first)) == first
    assert load(resolve(tmp_path))["step"] == 2


def test_a_checkpoint_outside_any_run_resolves_to_itself(tmp_path):
    from helix_kernel.checkpoint import save

    save(tmp_path / "mine", {})
    assert resolve(tmp_path / "mine") == tmp_path / "mine"


def test_a_path_that_means_nothing_good_is_an_error_that_names_the_damage(tmp_path):
    path = CheckpointManager(tmp_path / "run").save(1, state(1))
    truncate(path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = {
        "nowhere": "does not exist; allowed are a checkpoint's directory and a run's directory",
        "empty": "holds no checkpoint",
        "file": "is a file",
        "run": r"no good checkpoint; the newest: .*data-00000\.bin, part of array 'w', has 10 bytes",
        "run/step-00000001": r"data-00000\.bin, part of array 'w', has 10 bytes of 28 \(truncated\)",
        "run/step-00000009": "does not exist",
    }
    for name, message in cases.items():
        with pytest.raises(CheckpointError, match=message):
            resolve(tmp_path / name)
