"""What is told of workers that failed, and of runs that none of them could show on a terminal."""

from __future__ import annotations

import io

import pytest

from helix_kernel import load_config
from helix_kernel.cli import main
from helix_kernel.errors import DataError, HelixError, InputError, LockError
from helix_kernel.lock_record import Record
from helix_ray.launch import Workers, _failure, absolute
from helix_ray.lines import Lines
from helix_ray.worker import has_checkpoints, require_served_alike


class WrappedError(Exception):
    """As Ray wraps what a worker raised."""

    def __init__(self, inner):
        super().__init__("a traceback of many lines")
        self._base_exc = inner


def test_workers_that_failed_alike_are_told_of_once():
    lost = HelixError("another rank ended")
    error = _failure(
        {2: WrappedError(lost), 0: WrappedError(lost), 1: WrappedError(HelixError("loss is nan"))}
    )
    assert type(error) is HelixError
    assert str(error).count("another rank ended") == 1
    assert "worker 0: another rank ended" in str(error)
    assert "worker 1: loss is nan" in str(error)
    assert "trainer.resume=true" in str(error)


def test_wrong_input_stays_wrong_input():
    error = _failure(
        {0: HelixError("another rank ended"), 1: WrappedError(WrappedError(DataError("x.txt: missing")))}
    )
    assert isinstance(error, InputError)
    assert str(error) == "x.txt: missing"


def test_an_error_without_words_is_told_by_its_type():
    assert "worker 0: MemoryError" in str(_failure({0: MemoryError()}))


def test_workers_ask_ray_for_gpus_only_where_they_take_some():
    assert Workers(cpus=2).resources == {"CPU": 2}
    assert Workers(gpus=1).resources == {"CPU": 1, "GPU": 1}


def test_a_folder_is_made_absolute_and_an_object_store_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute("records") == str(tmp_path / "records")
    assert absolute("s3://bucket/records") == "s3://bucket/records"


def test_checkpoints_are_seen_where_there_are_some(tmp_path):
    assert not has_checkpoints(tmp_path)
    (tmp_path / "checkpoints" / "step-00000003").mkdir(parents=True)
    assert has_checkpoints(tmp_path)


@pytest.mark.parametrize(("every", "shown"), [(0.0, [1, 2, 3]), (1e9, [1, 3])])
def test_lines_come_as_often_as_asked_and_always_for_the_last_step(every, shown):
    class Update(str):
        __slots__ = ("step",)

    stream = io.StringIO()
    lines = Lines(stream, every=every)
    lines.note("a note")
    lines.begin(step=0, steps=3)
    for step in (1, 2, 3):
        update = Update("loss 1")
        update.step = step
        lines.update(update)
    lines.validating(1, 2)
    lines.validating(1, None)
    lines.evaluated(3, "1.5 held out")
    lines.close()
    told = ["measuring what is held out: 1 of 2 batches", "measuring what is held out: 1 batches"]
    steps = [f"step {step}/3  loss 1" for step in shown]
    expected = ["a note", *steps, *(told if every == 0 else []), "step 3: 1.5 held out"]
    assert stream.getvalue().splitlines() == expected


@pytest.fixture
def config(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return load_config("config.toml", ["kernel.backends=['reference']"])


def test_a_worker_that_something_else_serves_is_refused(config):
    require_served_alike(config, config.record)
    other = config.record.as_dict()
    other["distributions"]["helix-ssm"]["source"] = "sha256:0"
    with pytest.raises(LockError, match=r"something else serves.*\n  helix-ssm .*: its source is not"):
        require_served_alike(config, Record.from_dict(other))


@pytest.mark.parametrize("option", [["--locked"], ["--lock", "gone.toml"]])
def test_a_run_that_is_to_be_locked_asks_for_the_lock_before_ray_starts(folder, monkeypatch, capsys, option):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("helix_ray.cluster.connected", None)
    with pytest.raises(SystemExit) as ended:
        main(["ray", "train", "config.toml", *option])
    assert ended.value.code == 2
    assert "make it by: helix config lock config.toml" in capsys.readouterr().err
