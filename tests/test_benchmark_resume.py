"""The benchmark of resuming: Helix's part finds a killed run exact, and its comparison can find otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import attrs
import pytest

HERE = Path(__file__).parent / "benchmarks/resume"
sys.path[:0] = [str(HERE), str(HERE.parent)]


@pytest.fixture(scope="module")
def parts():
    """The modules of the benchmark: the comparison, the task, the trainers, and torch."""
    import comparing
    import resume_task
    import systems
    import torch

    return comparing, resume_task, systems, torch


def test_lists_differ_where_a_value_is_another_or_missing(parts):
    comparing = parts[0]
    assert comparing.unequal(["a", "b", "c"], ["a", "x"]) == [1, 2]
    assert comparing.unequal(["a"], ["a"]) == []


def test_a_difference_is_relative_to_the_largest_value(parts):
    comparing, _, _, torch = parts
    one = {"w": torch.tensor([1.0, -4.0])}
    assert comparing.largest_difference(one, one) == 0
    assert comparing.largest_difference(one, {"w": torch.tensor([1.0, -3.0])}) == 0.25
    assert comparing.largest_difference(one, {}) == float("inf")


@pytest.mark.slow
def test_helix_resumes_to_the_bit_after_a_kill(parts, tmp_path):
    comparing, task, systems, torch = parts
    import with_helix

    site = tmp_path / "site"
    site.mkdir()
    with_helix.install_plugin(site)
    job = task.Job(out=str(tmp_path / "whole"), steps=4, checkpoint_every=2, epoch_batches=3)
    killed = attrs.evolve(job, out=str(tmp_path / "killed"), kill_at=6)
    resumed = attrs.evolve(job, out=str(tmp_path / "resumed"), resume=True)
    with systems.Runner(sys.executable, site) as runner:
        runner.run(systems.HELIX, job)
        runner.run(systems.HELIX, killed)
        runner.resume_copy(systems.HELIX, killed, resumed)
    losses = tuple(systems.losses_after(systems.HELIX, one, 4, 2) for one in (job, resumed))
    found = comparing.compare(job, resumed, checkpoint_at=2, losses=losses)
    assert found.batches == 4
    assert found.is_exact, found

    end = torch.load(tmp_path / "resumed/end.pt", weights_only=False)
    weight = end["weights"]["head.weight"]
    weight[0, 0] = torch.nextafter(weight[0, 0], torch.tensor(1.0))
    torch.save(end, tmp_path / "resumed/end.pt")
    assert comparing.compare(job, resumed, checkpoint_at=2, losses=losses).first == "weights"
