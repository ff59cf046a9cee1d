"""Profiles of a few steps: a trace that a browser can open, and what it costs to ask for none."""

from __future__ import annotations

import json
import time

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_train.profiling import Profiler


@pytest.fixture
def notes():
    return []


def run(profiler, steps, *, work=lambda step: torch.ones(8, 8) @ torch.ones(8, 8)):
    for step in steps:
        profiler.before(step)
        work(step)
    profiler.close()


def events(path):
    return [event["name"] for event in json.loads(path.read_text())["traceEvents"] if "name" in event]


def test_the_steps_asked_for_are_traced_and_no_others(tmp_path, notes):
    directory = tmp_path / "run" / "profile"
    run(Profiler((3, 5), directory, notes.append), range(1, 9))
    assert sorted(path.name for path in directory.iterdir()) == ["ops-3-5.txt", "trace-3-5.json"]
    names = events(directory / "trace-3-5.json")
    assert [name for name in names if name.startswith("step ")] == ["step 3", "step 4", "step 5"]
    assert names.count("aten::mm") == 3
    (note,) = notes
    assert note.startswith(f"profile of steps 3-5: {directory}/trace-3-5.json")


def test_the_table_has_the_op_that_took_most_time_first(tmp_path, notes):
    def work(step):
        big = torch.ones(300, 300)
        big @ big @ big
        torch.ones(2).add(1)

    run(Profiler((1, 2), tmp_path, notes.append), range(1, 4), work=work)
    table = (tmp_path / "ops-1-2.txt").read_text()
    assert table.startswith("By their own time on CPU\n")
    assert table.index("aten::mm") < table.index("aten::add ")
    assert "Self CPU" in table


@pytest.mark.parametrize(("ran", "file"), [(range(1, 4), "trace-2-3.json"), (range(4, 7), "trace-4-6.json")])
def test_a_run_that_ends_early_or_begins_late_writes_down_what_there_was(tmp_path, notes, ran, file):
    run(Profiler((2, 9), tmp_path, notes.append), ran)
    assert (tmp_path / file).exists()


def test_a_run_without_these_steps_writes_nothing(tmp_path, notes):
    run(Profiler((20, 30), tmp_path / "profile", notes.append), range(1, 5))
    assert not (tmp_path / "profile").exists()
    assert notes == []


@pytest.mark.parametrize("back", [2, 1])
def test_a_run_that_goes_back_ends_the_trace_there(tmp_path, notes, back):
    run(Profiler((2, 4), tmp_path, notes.append), [1, 2, 3, *range(back, 6)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ops-2-3.txt", "trace-2-3.json"]


def test_a_full_disk_does_not_end_the_run(tmp_path, notes):
    (tmp_path / "profile").write_text("a file where the directory should be")
    run(Profiler((1, 1), tmp_path / "profile", notes.append), range(1, 4))
    (note,) = notes
    assert note.startswith("the profile could not be written: ")


@pytest.mark.parametrize("steps", [(0, 3), (5, 4), (-1, 2)])
def test_steps_that_are_none_are_refused(tmp_path, notes, steps):
    with pytest.raises(ArgumentError, match=r"trainer\.profile_steps is .* as \[10, 13\]"):
        Profiler(steps, tmp_path, notes.append)


def test_what_is_traced_is_computed_to_the_bit_as_otherwise(tmp_path, notes):
    def work(step):
        torch.manual_seed(step)
        found.append(torch.nn.functional.gelu(torch.randn(64, 64) @ torch.randn(64, 64)).sum().item())

    found = []
    run(Profiler((2, 3), tmp_path, notes.append), range(1, 5), work=work)
    traced, found = found, []
    run(Profiler(None, tmp_path, notes.append), range(1, 5), work=work)
    assert found == traced


def test_asking_for_none_costs_less_than_a_microsecond_a_step(tmp_path, notes):
    profiler = Profiler(None, tmp_path, notes.append)
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        for step in range(1000):
            profiler.before(step)
        times.append((time.perf_counter() - begun) / 1000)
    assert min(times) < 1e-6
