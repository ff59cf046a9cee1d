"""Beginning with the weights of another checkpoint, and with nothing else of it."""

from __future__ import annotations

import io
import json
import shutil

import pytest
import torch

from helix_kernel.checkpoint import load
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError
from helix_train.progress import Progress


def fit(trainer):
    shown = io.StringIO()
    trainer.fit(Progress(shown))
    return shown.getvalue()


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture
def other(trainer, tmp_path):
    """A run of two steps, and its model's weights."""
    trained = trainer({"trainer.steps": 2, "trainer.seed": 7, "trainer.out": str(tmp_path / "other")})
    fit(trained)
    return tmp_path / "other", trained.model.state_dict()


@pytest.mark.parametrize("path", ["", "checkpoints/step-00000002"])
def test_the_first_step_begins_with_the_weights_and_a_fresh_optimizer(trainer, other, path):
    run, weights = other
    begun = trainer({"trainer.initial_weights": str(run / path)})
    assert_equal(begun.model.state_dict(), weights)
    shown = fit(begun)
    assert f"beginning with the weights of {run / 'checkpoints/step-00000002'}" in shown
    assert "note:" not in shown
    assert begun.dataset.steps == list(range(6))
    assert {int(state["step"]) for state in begun.optimizer.state.values()} == {6}


def test_dropout_and_data_are_drawn_as_without_them(trainer, other, tmp_path):
    run, weights = other
    losses = []
    for name, changes in {"read": {"trainer.initial_weights": str(run)}, "set": {}}.items():
        begun = trainer({"model.dropout": 0.3, **changes, "trainer.out": str(tmp_path / name)})
        begun.model.load_state_dict(weights)
        fit(begun)
        losses.append((tmp_path / name / "metrics.jsonl").read_bytes())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("resume", [True, "auto"])
def test_a_resumed_run_does_not_read_them_again(trainer, other, tmp_path, resume):
    run, _ = other
    changes = {"trainer.initial_weights": str(run), "trainer.checkpoint_every": 1, "trainer.resume": "auto"}
    whole = {**changes, "trainer.out": str(tmp_path / "whole")}
    fit(trainer(whole))
    parts = {**changes, "trainer.out": str(tmp_path / "parts")}
    begun = trainer(parts)
    begun.steps = 3
    fit(begun)
    shutil.rmtree(run)
    shown = fit(trainer({**parts, "trainer.resume": resume}))
    assert "beginning" not in shown
    assert "note:" not in shown
    states = [
        load(tmp_path / name / "checkpoints/step-00000006", as_torch=True) for name in ("whole", "parts")
    ]
    for slot in ("embedding", "head"):
        assert_equal(states[0]["model"][slot], states[1]["model"][slot])


def test_a_resume_may_leave_them_out(trainer, other, tmp_path):
    run, _ = other
    begun = trainer({"trainer.initial_weights": str(run), "trainer.checkpoint_every": 3})
    fit(begun)
    assert "note:" not in fit(trainer({"trainer.resume": True, "trainer.checkpoint_every": 3}))
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert [record["step"] for record in map(json.loads, lines) if "loss" in record] == list(range(1, 7))


def test_an_option_of_the_model_that_differs_is_noted(trainer, other):
    shown = fit(trainer({"trainer.initial_weights": str(other[0]), "model.dropout": 0.3}))
    assert "note: model.dropout was 0.0 in the checkpoint, is 0.3 now" in shown


def test_weights_of_another_shape_are_refused(trainer, other):
    message = r"trainer\.initial_weights: .*step-00000002 holds the weights of another architecture(?s:.*)"
    with pytest.raises(
        IncompatibleCheckpointError, match=message + r"\(256, 8\) in the checkpoint, \(256, 9\)"
    ):
        trainer({"trainer.initial_weights": str(other[0]), "model.d_model": 9})


def test_weights_of_another_model_are_named(trainer, other, table):
    table["model"] = {"use": "linear", "in_features": 8, "out_features": 256}
    with pytest.raises(IncompatibleCheckpointError) as caught:
        trainer({"trainer.initial_weights": str(other[0])})
    message = str(caught.value)
    assert "missing: weight (256, 8), nearest of those left over: head.weight" in message
    assert "left over: embedding.weight (256, 8)" in message


def test_a_checkpoint_that_is_not_there_is_an_error(trainer, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere does not exist"):
        trainer({"trainer.initial_weights": str(tmp_path / "nowhere")})
