"""Several processes train one model: the same numbers as one, whatever is shared and however it is cut."""

from __future__ import annotations

import parallel_runs
import pytest
import ranks
import torch

WAYS = {
    "ddp": {"trainer.parallel": "ddp"},
    "fsdp2": {"trainer.parallel": "fsdp2"},
    "ddp chunked": {"trainer.parallel": "ddp", "trainer.chunk_len": 4},
    "fsdp2 chunked": {"trainer.parallel": "fsdp2", "trainer.chunk_len": 4},
    "ddp truncated": {"trainer.parallel": "ddp", "trainer.chunk_len": 4, "trainer.gradient": "truncated"},
    "fsdp2 truncated": {"trainer.parallel": "fsdp2", "trainer.chunk_len": 4, "trainer.gradient": "truncated"},
    "fsdp2 clipped": {"trainer.parallel": "fsdp2", "trainer.clip_adaptive": 0.02, "trainer.clip_value": 0.01},
    "fsdp2 ema": {"trainer.parallel": "fsdp2", "trainer.callbacks": [{"use": "ema", "decay": 0.5}]},
}
FEW = {name: WAYS[name] for name in ("ddp", "fsdp2")}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks")


def jobs(directory, world, ways):
    """Each way of training, with as many rows a step in any world."""
    always = {"trainer.accumulate": 4 // world, "trainer.validate_every": 2, "trainer.steps": 4}
    found = {}
    for name, changes in ways.items():
        alone = {"trainer.parallel": "none"} if world == 1 else {}
        out = str(directory / f"{name.replace(' ', '-')}-{world}")
        found[name] = {**always, **changes, **alone, "trainer.out": out}
    return found


def launch(directory, world, found):
    outcomes = ranks.run(directory, world, parallel_runs.train_all, found)
    assert all(isinstance(outcome, dict) for outcome in outcomes), outcomes
    return outcomes


@pytest.fixture(scope="module")
def alone(directory):
    (outcome,) = launch(directory, 1, jobs(directory, 1, WAYS))
    return outcome


@pytest.fixture(scope="module")
def of_two(directory):
    return launch(directory, 2, jobs(directory, 2, WAYS))


@pytest.fixture(scope="module")
def of_four(directory):
    return launch(directory, 4, jobs(directory, 4, FEW))


def assert_as_one(outcomes, one):
    first = outcomes[0]
    assert [outcome["error"] for outcome in (*outcomes, one)] == [None] * (len(outcomes) + 1)
    assert len(first["records"]) == len(one["records"]) == 6
    for found, expected in zip(first["records"], one["records"], strict=True):
        assert found == pytest.approx(expected, rel=1e-9)
    for outcome in outcomes:
        for name, tensor in one["weights"].items():
            if name.endswith("seen"):  # of rank 0's share, on all alike
                assert torch.equal(outcome["weights"][name], first["weights"][name])
            else:
                torch.testing.assert_close(outcome["weights"][name], tensor, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_compute_what_one_does(alone, of_two, way):
    assert_as_one([outcome[way] for outcome in of_two], alone[way])


@pytest.mark.parametrize("way", FEW)
def test_four_ranks_compute_what_one_does(alone, of_four, way):
    assert_as_one([outcome[way] for outcome in of_four], alone[way])
