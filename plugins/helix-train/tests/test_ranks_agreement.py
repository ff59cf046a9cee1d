"""What one rank decides, all do; what one rank suffers, all are told; and only the first one tells."""

from __future__ import annotations

import signal

import parallel_runs
import pytest
import ranks
import torch

from helix_kernel.errors import ArgumentError
from helix_train.ranks import Ranks, join

WAYS = ["ddp", "fsdp2"]
ALL_LOSERS = {"skip": 1, "roll-back": 4, "terminate": 2, "stop-stepped": 3, "stop-validated": 4}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("ranks-agreement")


def job(directory, name, parallel, act="", step=2, **changes):
    callbacks = [{"use": "on-one-rank", "act": act, "step": step}]
    return {
        "trainer.parallel": parallel,
        "trainer.out": str(directory / name),
        "trainer.callbacks": callbacks,
        **changes,
    }


@pytest.fixture(scope="module")
def outcomes(directory):
    """What both of two ranks saw of each job."""
    jobs = {
        f"{way} {act}": job(directory, f"{way}-{act}", way, act, step, **{"trainer.validate_every": 2})
        for way in WAYS
        for act, step in ALL_LOSERS.items()
    }
    jobs |= {
        "unused": job(directory, "unused", "ddp", **{"model.use": "unused"}),
        "own weights": job(directory, "own-weights", "fsdp2", **{"model.use": "own-weights"}),
        "async": job(directory, "async", "ddp", **{"trainer.checkpoint_async": True}),
        "none": job(directory, "none", "none"),
        "taken": {"trainer.out": str(directory / "ddp-skip")},
    }
    found = ranks.run(directory, 2, parallel_runs.train_all, jobs)
    assert all(isinstance(outcome, dict) for outcome in found), found
    return found


def both(outcomes, name):
    first, second = (outcome[name] for outcome in outcomes)
    for tensor, other in zip(first["weights"].values(), second["weights"].values(), strict=True):
        assert torch.equal(tensor, other), "the ranks have parted"
    assert (first["step"], first["seen"], first["error"]) == (
        second["step"],
        second["seen"],
        second["error"],
    )
    return first, second


def trained(outcome):
    return [record["step"] for record in outcome["records"] if "grad_norm" in record]


@pytest.mark.parametrize("way", WAYS)
def test_a_step_that_one_rank_would_skip_is_skipped_by_all(outcomes, way):
    first, _ = both(outcomes, f"{way} skip")
    assert first["error"] is None
    assert trained(first) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize("way", WAYS)
def test_all_roll_back_where_one_would_and_go_on_with_other_data(outcomes, way):
    first, _ = both(outcomes, f"{way} roll-back")
    assert first["error"] is None
    assert trained(first) == [1, 2, 3, 4, 5, 6]
    assert "back from step 4 to" in first["shown"]
    losses = [loss for loss, _ in first["seen"][0]]
    assert len(losses) == 8, "steps 4 and 5 were judged twice"
    assert losses[3] != losses[5], "the fourth step has other data the second time"


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_to_one_rank_ends_all_after_the_same_step_with_a_checkpoint(directory, outcomes, way):
    first, _ = both(outcomes, f"{way} terminate")
    assert first["error"].startswith("InterruptedRunError: interrupted after 4 of 6 steps")
    assert (directory / f"{way}-terminate/checkpoints/step-00000004").is_dir()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("act", "step"), [("stop-stepped", 3), ("stop-validated", 4)])
def test_a_callback_of_one_rank_ends_the_run_of_all(directory, outcomes, way, act, step):
    first, _ = both(outcomes, f"{way} {act}")
    assert (first["error"], first["step"]) == (None, step)
    assert "a callback of another rank ends the run" in first["shown"]
    assert (directory / f"{way}-{act}/checkpoints/step-{step:08d}").is_dir()


def test_the_first_rank_tells_and_the_others_are_silent(directory, outcomes):
    first, second = both(outcomes, "ddp skip")
    assert "6 held out" not in first["shown"]
    assert "step 6: " in first["shown"]
    assert second["shown"] == ""
    assert (directory / "ddp-skip/metrics.jsonl").read_text().count('"grad_norm"') == 5


def test_a_weight_without_a_gradient_is_named(outcomes):
    first, _ = both(outcomes, "unused")
    assert first["error"].startswith("HelixError: no gradient came to idle, for which trainer.parallel='ddp'")


def test_models_that_begin_otherwise_are_refused_with_the_weights_that_differ(outcomes):
    first, second = (outcome["own weights"] for outcome in outcomes)
    assert first["error"] == second["error"]
    assert first["error"].startswith("HelixError: rank 1 begins with other weights than rank 0: head.bias; ")


def test_what_several_ranks_cannot_do_is_refused(outcomes):
    for name, told in {
        "async": "ArgumentError: trainer.checkpoint_async is true, which is for one process; 2 ranks",
        "none": "ArgumentError: trainer.parallel is 'none', but torchrun started 2 processes",
        "taken": "InputError: trainer.out: ",
    }.items():
        first, second = (outcome[name]["error"] for outcome in outcomes)
        assert first == second
        assert first.startswith(told)


def test_the_error_of_one_rank_is_told_there_and_the_others_end_at_once(directory):
    jobs = {"it": job(directory, "raise", "ddp", "raise")}
    (first, seconds), (second, _) = ranks.run(directory, 2, parallel_runs.failed, jobs)
    assert second["it"]["error"] == "HelixError: this rank has had enough"
    assert first["it"]["error"].startswith("LostRankError: rank 0: another rank ended or does not answer")
    assert seconds < 30


def test_a_rank_that_is_killed_is_noticed_at_once(directory):
    jobs = {"it": job(directory, "kill", "fsdp2", "kill")}
    (first, seconds), second = ranks.run(directory, 2, parallel_runs.failed, jobs)
    assert second == -signal.SIGKILL
    assert "LostRankError: rank 0: another rank ended" in first["it"]["error"]
    assert seconds < 30


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_ranks_without_torchrun_are_an_error_that_says_what_to_run(parallel, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ArgumentError, match="alone; start it by torchrun: torchrun --nproc-per-node"):
        join(parallel, "cpu")


def test_one_process_trains_alone_with_or_without_torchrun(monkeypatch):
    assert type(join("auto", "cpu")) is Ranks
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert type(join("none", "cpu")) is Ranks
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ArgumentError, match="WORLD_SIZE is 'two', torchrun sets a number"):
        join("auto", "cpu")
