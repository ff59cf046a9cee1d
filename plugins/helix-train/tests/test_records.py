"""Metrics on disk: whole lines, cut back to the step that a run goes on from."""

from __future__ import annotations

import json
import math

import pytest

from helix_kernel.errors import DataError
from helix_train import records
from helix_train.evaluation import Evaluation
from helix_train.records import Recorder, StepReport, read_records


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still unless it is moved."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(records.time, "perf_counter", lambda: Clock.now)
    return Clock


def write(out, steps=range(1, 5), *, step=0, in_bits=True):
    recorder = Recorder(out, step=step, in_bits=in_bits)
    for number in steps:
        recorder.training(StepReport(step=number, loss=number / 2, norm=1.0, rate=0.1, n_tokens=10))
    return recorder


def test_a_line_is_there_as_soon_as_it_is_recorded(tmp_path):
    recorder = write(tmp_path, [3])
    expected = {"step": 3, "loss": 1.5, "bits_per_byte": 1.5 / math.log(2), "grad_norm": 1.0, "lr": 0.1}
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == expected
    recorder.close()


def test_a_loss_that_is_none_of_bytes_has_no_bits(tmp_path):
    recorder = Recorder(tmp_path, step=0, in_bits=False)
    update = recorder.training(StepReport(step=1, loss=2.0, norm=1.0, rate=0.1, n_tokens=10))
    recorder.close()
    assert update.bits_per_byte is None
    assert "bits_per_byte" not in read_records(recorder.metrics)[0]


def test_times_are_kept_apart_and_leave_out_pauses(tmp_path, clock):
    recorder = Recorder(tmp_path, step=2, in_bits=True)
    clock.now += 3
    with recorder.paused():
        clock.now += 50
    clock.now += 1
    update = recorder.training(StepReport(step=10, loss=1.0, norm=1.0, rate=0.1, n_tokens=5, waited=1.0))
    recorder.close()
    assert update.tokens_per_second == 8 * 5 / 4
    assert update.data_wait == 0.25
    (record,) = read_records(tmp_path / "timing.jsonl")
    assert record == {"step": 10, "seconds": 4.0, "tokens_per_second": 10.0, "data_wait": 0.25}
    assert "seconds" not in (tmp_path / "metrics.jsonl").read_text()


@pytest.mark.parametrize("file", ["metrics.jsonl", "timing.jsonl"])
def test_going_on_drops_what_came_after_the_checkpoint(tmp_path, file):
    write(tmp_path).close()
    before = (tmp_path / file).read_text().splitlines(keepends=True)
    write(tmp_path, [], step=2).close()
    assert (tmp_path / file).read_text() == "".join(before[:2])
    assert not list(tmp_path.glob("*.tmp"))


def test_a_run_from_the_beginning_keeps_no_line(tmp_path):
    write(tmp_path).close()
    write(tmp_path, []).close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_last_line_that_a_kill_cut_short_is_left_out(tmp_path, cut):
    write(tmp_path).close()
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert [record["step"] for record in read_records(path)] == [1, 2, 3]
    write(tmp_path, [4], step=3).close()
    assert [record["step"] for record in read_records(path)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[1]",
        '{"loss": 1}',
        '{"step": "x"}',
        '{"step": "2"}',
        '{"step": 1.5}',
        '{"step": Infinity}',
        "\x00\x00",
    ],
)
def test_any_other_damage_is_named_by_its_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2: not a JSON object with a step"):
        read_records(path)


def test_no_file_holds_no_records(tmp_path):
    assert read_records(tmp_path / "metrics.jsonl") == []


def test_only_what_is_known_is_written_down(tmp_path):
    recorder = write(tmp_path, [1])
    recorder.validation(step=1, evaluation=Evaluation(0.5, 10, None, 0.9))
    recorder.training(StepReport(step=2, loss=1.0, norm=1.0, rate=0.1, n_tokens=10, auxiliary=0.25))
    recorder.close()
    _, validation, training = read_records(recorder.metrics)
    assert validation == {"step": 1, "validation_loss": 0.5, "validation_accuracy": 0.9}
    assert training["auxiliary_loss"] == 0.25


def test_a_validation_is_written_down_once_a_step(tmp_path):
    recorder = write(tmp_path, [1])
    recorder.validation(step=1, evaluation=Evaluation(math.log(2), 10))
    recorder.close()
    expected = {"step": 1, "validation_loss": math.log(2), "validation_bits_per_byte": 1.0}
    assert read_records(recorder.metrics)[1] == expected
    again = Recorder(tmp_path, step=1, in_bits=True)
    again.validation(step=1, evaluation=Evaluation(5.0, 10))
    again.validation(step=2, evaluation=Evaluation(6.0, 10))
    again.close()
    found = [r["validation_loss"] for r in read_records(again.metrics) if "validation_loss" in r]
    assert found == [math.log(2), 6.0]
