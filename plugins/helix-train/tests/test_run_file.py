"""`run.json`: there from the first moment, whole at any moment, and true of a run that was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime

import attrs
import pytest

from helix_kernel.errors import DataError
from helix_train import run_file
from helix_train.evaluation import Evaluation
from helix_train.run_file import RunFile, read_run_file

PROVENANCE = {
    "config": {"model": {"use": "toy"}},
    "components": {"layer/toy-lm:toy": "1.0"},
    "api": 1,
    "ops": {"requested": ["auto"], "chosen": {}},
    "data_fingerprint": "f",
    "environment": {"python": "3.11"},
}


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(run_file.time, "monotonic", lambda: Clock.now)
    return Clock


def begin(out, *, step=0, steps=10, **more):
    return RunFile.begin(out, step=step, steps=steps, provenance=PROVENANCE, **more)


def document(out):
    return json.loads((out / "run.json").read_text(), parse_constant=pytest.fail)


def test_it_says_at_once_what_runs(tmp_path):
    begin(tmp_path, n_parameters=7, tokens_per_step=64, flops_per_step=1e9)
    found = document(tmp_path)
    assert found["status"] == "running"
    assert {name: found[name] for name in PROVENANCE if name != "api"} == {
        name: value for name, value in PROVENANCE.items() if name != "api"
    }
    expected = {"step": 0, "steps": 10, "n_parameters": 7, "flops_per_step": 1e9, "tokens_per_step": 64}
    assert {name: found[name] for name in expected} == expected
    assert {"pid", "host"} <= found["process"].keys()
    assert found["ended_at"] is None
    assert datetime.fromisoformat(found["started_at"]).utcoffset().total_seconds() == 0


def test_what_was_written_is_read_back(tmp_path):
    file = begin(tmp_path)
    file.end("failed", step=4, evaluation=Evaluation(0.5, 10), checkpoint=tmp_path, error="loss is nan")
    read = read_run_file(tmp_path)
    assert read == file.record
    assert (read.status, read.step, read.error, read.checkpoint) == (
        "failed",
        4,
        "loss is nan",
        str(tmp_path),
    )
    assert read.evaluation == {"loss": 0.5, "bits_per_byte": Evaluation(0.5, 10).bits_per_byte}


def test_updates_reach_the_disk_now_and_then_and_the_end_always(tmp_path, clock):
    file = begin(tmp_path)
    clock.now += 1
    file.update(step=1, flops_per_step=2e9)
    assert document(tmp_path)["step"] == 0
    clock.now += 5
    file.update(step=2, evaluation=Evaluation(0.5, 10, None, 0.25), checkpoint="c")
    found = document(tmp_path)
    assert (found["step"], found["flops_per_step"], found["checkpoint"]) == (2, 2e9, "c")
    assert found["evaluation"] == {"loss": 0.5, "accuracy": 0.25}
    assert found["wall_time"] == 6.0
    clock.now += 1
    file.end("done", step=3, samples=["once"])
    found = document(tmp_path)
    assert (found["status"], found["step"], found["samples"], found["wall_time"]) == (
        "done",
        3,
        ["once"],
        7.0,
    )
    assert found["evaluation"] == {"loss": 0.5, "accuracy": 0.25}
    assert found["ended_at"] is not None


def test_a_run_that_goes_on_keeps_its_start_and_adds_its_time(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(run_file, "_now", lambda: "2026-01-01T00:00:00+00:00")
    file = begin(tmp_path)
    clock.now += 30
    file.end("interrupted", step=4)
    monkeypatch.setattr(run_file, "_now", lambda: "2026-02-02T00:00:00+00:00")
    begin(tmp_path, step=4, wall_time=20.0)
    clock.now += 100
    file = begin(tmp_path, step=4)
    clock.now += 2
    file.end("done", step=10)
    found = read_run_file(tmp_path)
    assert found.started_at == "2026-01-01T00:00:00+00:00"
    assert found.ended_at == "2026-02-02T00:00:00+00:00"
    assert found.wall_time == 32.0
    assert [resume["step"] for resume in found.resumes] == [4, 4]


def test_of_a_run_whose_file_is_missing_or_damaged_the_checkpoint_knows_the_time(tmp_path, clock):
    (tmp_path / "run.json").write_text("{")
    file = begin(tmp_path, step=4, wall_time=20.0)
    clock.now += 1
    file.end("done")
    assert read_run_file(tmp_path).wall_time == 21.0


def test_a_run_from_the_beginning_forgets_the_one_before(tmp_path, clock):
    file = begin(tmp_path)
    clock.now += 30
    file.end("failed", error="no")
    begin(tmp_path)
    found = read_run_file(tmp_path)
    assert (found.status, found.wall_time, found.error, found.resumes) == ("running", 0.0, None, ())


def test_a_write_that_is_refused_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    file = begin(tmp_path)
    before = document(tmp_path)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_file.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.end("done")
    assert document(tmp_path) == before


def test_a_run_that_was_killed_says_running_and_is_known_to_have_died(tmp_path):
    code = (
        "import os, pathlib, signal\n"
        "from helix_train.run_file import RunFile\n"
        f"RunFile.begin(pathlib.Path({str(tmp_path)!r}), step=0, steps=9, provenance={{}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    record = read_run_file(tmp_path)
    assert record.status == "running"
    assert record.state() == "died"
    assert attrs.evolve(record, status="done").state() == "done"


def test_a_run_that_goes_on_is_running(tmp_path):
    begin(tmp_path)
    assert read_run_file(tmp_path).state() == "running"


def test_numbers_that_json_lacks_are_no_numbers(tmp_path):
    file = RunFile.begin(tmp_path, step=0, steps=1, provenance={"config": {"loss": {"bound": float("inf")}}})
    file.end("failed", evaluation=Evaluation(float("nan"), 10, None, 0.5))
    found = document(tmp_path)
    assert found["config"]["loss"]["bound"] == "Infinity"
    assert found["evaluation"] == {"accuracy": 0.5}


def test_text_that_is_no_utf8_is_written_all_the_same(tmp_path):
    file = begin(tmp_path)
    file.end("failed", error="cannot open '\udcff'")
    assert read_run_file(tmp_path).status == "failed"


def test_no_file_is_no_record(tmp_path):
    assert read_run_file(tmp_path) is None


def test_keys_of_a_later_version_are_passed_over(tmp_path):
    begin(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**document(tmp_path), "mood": "good"}))
    assert read_run_file(tmp_path).steps == 10


@pytest.mark.parametrize(
    "change",
    [
        {"status": "asleep"},
        {"step": "3"},
        {"wall_time": None},
        {"evaluation": {"loss": "low"}},
        {"samples": [1]},
        {"process": {"pid": -1, "host": "h"}},
        {"process": {"number": 1}},
        {"config": []},
    ],
    ids=str,
)
def test_another_programs_file_is_refused(tmp_path, change):
    begin(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**document(tmp_path), **change}))
    with pytest.raises(DataError, match=r"run\.json does not describe a run: .+; remove it"):
        read_run_file(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 200_000], ids=range(6))
def test_what_is_no_json_object_is_refused(tmp_path, content):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(DataError, match="does not describe a run"):
        read_run_file(tmp_path)
