"""Going on from a checkpoint: to the bit, or with a note or an error that says why not."""

from __future__ import annotations

import io
import json
from copy import deepcopy
from pathlib import Path

import attrs
import pytest
import torch

import helix_train.resume
from helix_kernel.checkpoint import load
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError, InputError
from helix_kernel.registry import Registry
from helix_kernel.restore import open_run
from helix_train.progress import Progress
from helix_train.run_file import read_run_file

DRAWING = {
    "model.use": "noisy",
    "model.dropout": 0.3,
    "data.draws": True,
    "trainer.checkpoint_every": 2,
    "trainer.validate_every": 3,
    "trainer.accumulate": 2,
}


def fit(trainer):
    shown = io.StringIO()
    trainer.fit(Progress(shown))
    return shown.getvalue()


def stop_after(trained, step):
    """Train as far as a killed process would: what comes after the step is lost."""
    record = trained._record

    def die(*values):
        if trained.step > step:
            raise KeyboardInterrupt
        record(*values)

    trained._record = die
    with pytest.raises(KeyboardInterrupt):
        fit(trained)


def state(out, step):
    return load(Path(out) / f"checkpoints/step-{step:08d}", as_torch=True)


def assert_equal(left, right, path=""):
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


@pytest.fixture
def saved(trainer, tmp_path):
    """A run of two steps, with a checkpoint after each."""
    out = tmp_path / "saved"
    fit(trainer({"trainer.steps": 2, "trainer.checkpoint_every": 1, "trainer.out": str(out)}))
    return out


@pytest.mark.parametrize(
    ("mode", "killed"),
    [
        ({"optimizer.use": "adamw"}, 4),
        ({"optimizer.use": "lion"}, 4),
        ({"optimizer.use": "rmsprop"}, 5),
        ({"trainer.chunk_len": 4, "trainer.gradient": "exact"}, 5),
        ({"trainer.chunk_len": 4, "trainer.gradient": "truncated"}, 5),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(trainer, tmp_path, mode, killed):
    changes = {**DRAWING, "optimizer.lr": 1e-2, "trainer.steps": 7, **mode}
    whole = {**changes, "trainer.out": str(tmp_path / "whole")}
    fit(trainer(whole))
    broken = {**changes, "trainer.out": str(tmp_path / "broken")}
    stop_after(trainer(broken), killed)
    resumed = trainer({**broken, "trainer.resume": True})
    fit(resumed)
    assert resumed.dataset.steps[0] == 8  # only what was lost is done again
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]
    assert_equal(state(tmp_path / "whole", 7), state(tmp_path / "broken", 7))


def test_a_run_resumed_without_change_has_nothing_to_note(trainer, tmp_path):
    changes = {**DRAWING, "optimizer.betas": [0.8, 0.9]}
    stop_after(trainer(changes), 4)
    shown = fit(trainer({**changes, "trainer.resume": "auto"}))
    assert "note:" not in shown
    assert f"resuming from {tmp_path / 'run/checkpoints/step-00000004'} at step 4" in shown


def test_a_finished_run_is_only_evaluated_again(trainer, saved):
    before = (saved / "metrics.jsonl").read_bytes()
    again = trainer({"trainer.steps": 2, "trainer.out": str(saved), "trainer.resume": True})
    result = again.fit(Progress(io.StringIO()))
    assert again.dataset.steps == []
    assert (saved / "metrics.jsonl").read_bytes() == before
    assert result.step == 2
    assert result.checkpoint == saved / "checkpoints/step-00000002"
    assert result.evaluation.loss == json.loads(before.splitlines()[-1])["validation_loss"]


def test_a_checkpoint_past_the_last_step_is_said_so(trainer, saved):
    shown = fit(trainer({"trainer.steps": 1, "trainer.out": str(saved), "trainer.resume": True}))
    assert "the checkpoint is at step 2, past trainer.steps=1" in shown


class TestWhereToStart:
    def test_false_refuses_a_directory_that_is_used(self, trainer, saved):
        before = sorted(path.name for path in saved.rglob("*"))
        with pytest.raises(InputError, match=r"trainer\.out: .*saved.*go on with trainer\.resume=true"):
            trainer({"trainer.out": str(saved)})
        assert sorted(path.name for path in saved.rglob("*")) == before

    def test_what_a_kill_left_of_a_save_is_no_checkpoint(self, trainer, tmp_path):
        (tmp_path / "run/checkpoints/step-00000001.partial").mkdir(parents=True)
        assert trainer().start is None

    def test_true_wants_a_checkpoint(self, trainer):
        with pytest.raises(CheckpointError, match=r'there is no checkpoint in .*trainer\.resume="auto"'):
            trainer({"trainer.resume": True})

    def test_auto_begins_where_there_is_none(self, trainer):
        assert trainer({"trainer.resume": "auto"}).start is None

    @pytest.mark.parametrize("resume", [True, "auto"])
    def test_the_newest_good_one_is_taken(self, trainer, saved, resume, caplog):
        damage(saved / "checkpoints/step-00000002")
        changes = {"trainer.steps": 3, "trainer.out": str(saved), "trainer.checkpoint_every": 1}
        resumed = trainer({**changes, "trainer.resume": resume})
        assert resumed.start.step == 1
        fit(resumed)
        assert [state(saved, step)["step"] for step in (1, 2, 3)] == [1, 2, 3]

    @pytest.mark.parametrize("resume", [True, "auto"])
    def test_only_damaged_ones_are_never_a_new_beginning(self, trainer, saved, resume, caplog):
        for path in (saved / "checkpoints").glob("step-*"):
            damage(path)
        with pytest.raises(CheckpointError, match="no good checkpoint"):
            trainer({"trainer.out": str(saved), "trainer.resume": resume})

    @pytest.mark.parametrize("path", ["", "checkpoints", "checkpoints/step-00000002"])
    def test_a_path_is_taken_to_another_directory(self, trainer, saved, path, tmp_path):
        resumed = trainer({"trainer.resume": str(saved / path), "trainer.steps": 3})
        fit(resumed)
        assert resumed.dataset.steps == [2]
        assert state(tmp_path / "run", 3)["step"] == 3
        lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [3, 3]

    def test_a_path_that_does_not_exist_is_an_error(self, trainer, tmp_path):
        with pytest.raises(CheckpointError, match="nowhere does not exist"):
            trainer({"trainer.resume": str(tmp_path / "nowhere")})

    def test_an_earlier_checkpoint_does_not_overwrite_later_ones(self, trainer, saved):
        earlier = saved / "checkpoints/step-00000001"
        with pytest.raises(InputError, match=r"holds a checkpoint of step 2 already, later than step 1"):
            trainer({"trainer.out": str(saved), "trainer.resume": str(earlier)})
        assert trainer({"trainer.resume": str(earlier)}).start.step == 1


class TestDifferences:
    def resumed(self, trainer, saved, changes):
        same = {"trainer.steps": 2, "trainer.checkpoint_every": 1, "trainer.out": str(saved)}
        shown = fit(trainer({**same, "trainer.resume": True, **changes}))
        return [line for line in shown.splitlines() if line.startswith("note:")]

    @pytest.mark.parametrize(
        ("changes", "note"),
        [
            ({"trainer.seed": 5}, "note: trainer.seed was 0 in the checkpoint, is 5 now"),
            ({"trainer.steps": 3}, "note: trainer.steps was 2 in the checkpoint, is 3 now"),
            ({"model.dropout": 0.5}, "note: model.dropout was 0.0 in the checkpoint, is 0.5 now"),
            ({"data.fingerprint": "g"}, "note: data_fingerprint was 'f' in the checkpoint, is 'g' now"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_each_is_a_note(self, trainer, saved, changes, note):
        assert note in self.resumed(trainer, saved, changes)

    @pytest.mark.parametrize(
        "changes", [{"trainer.keep": 9}, {"trainer.checkpoint_every": 7}], ids=lambda c: next(iter(c))
    )
    def test_what_changes_no_number_is_none(self, trainer, saved, changes):
        assert self.resumed(trainer, saved, changes) == []

    def test_an_option_younger_than_the_checkpoint_is_none_at_its_default(self, trainer, saved, monkeypatch):
        def open_older(path, *, accept_versions):
            run = open_run(path, accept_versions=accept_versions)
            table = deepcopy(run.attributes["config"])
            del table["trainer"]["chunk_len"]
            return attrs.evolve(run, attributes={**run.attributes, "config": table})

        monkeypatch.setattr(helix_train.resume, "open_run", open_older)
        assert self.resumed(trainer, saved, {}) == []
        note = "note: trainer.chunk_len was 0 in the checkpoint, is 4 now"
        assert note in self.resumed(trainer, saved, {"trainer.chunk_len": 4})

    def test_another_environment_is_a_note_on_rounding(self, trainer, saved):
        n_threads = torch.get_num_threads()
        torch.set_num_threads(n_threads + 1)
        try:
            (note,) = self.resumed(trainer, saved, {})
        finally:
            torch.set_num_threads(n_threads)
        expected = f"threads was {n_threads} in the checkpoint, is {n_threads + 1} now: rounding may differ"
        assert note == f"note: {expected}"

    def test_a_changed_option_of_the_optimizer_is_the_one_in_use(self, trainer, saved):
        resumed = trainer({"trainer.out": str(saved), "trainer.resume": True, "optimizer.weight_decay": 0.7})
        fit(resumed)
        assert [group["weight_decay"] for group in resumed.optimizer.param_groups] == [0.7, 0.0]


class TestOtherArchitectures:
    def test_another_model_is_refused_before_anything_is_written(self, trainer, saved, tmp_path):
        resumed = trainer({"model.d_model": 16, "trainer.resume": str(saved)})
        with pytest.raises(IncompatibleCheckpointError, match=r"\(256, 8\) in the checkpoint, \(256, 16\)"):
            fit(resumed)
        assert not (tmp_path / "run").exists()

    def test_another_optimizer_takes_no_moments_of_the_wrong_kind(self, trainer, saved):
        resumed = trainer({"trainer.steps": 3, "optimizer.use": "sgd", "trainer.resume": str(saved)})
        with pytest.raises(IncompatibleCheckpointError, match=r"adamw.*sgd"):
            fit(resumed)


def upgrade(kernel):
    """Install the next major version of everything."""
    plugins = [attrs.evolve(plugin, version="99.0") for plugin in kernel.plugins]
    kernel.registry = Registry(plugins, kernel.failures)


def test_other_versions_are_refused_until_they_are_accepted_by_name(trainer, saved, kernel, tmp_path):
    upgrade(kernel)
    changes = {"trainer.steps": 3, "trainer.out": str(saved), "trainer.resume": True}
    with pytest.raises(
        IncompatibleCheckpointError, match=r"(?s)installed is 99\.0.*trainer\.accept_versions"
    ):
        trainer(changes)
    assert "step 3/3" in fit(trainer({**changes, "trainer.accept_versions": True}))
    begun = {"trainer.out": str(tmp_path / "other"), "trainer.initial_weights": str(saved)}
    with pytest.raises(IncompatibleCheckpointError, match=r"installed is 99\.0"):
        trainer(begun)
    assert trainer({**begun, "trainer.accept_versions": True}).start is None


def damage(checkpoint):
    chunks = [path for path in checkpoint.rglob("*") if path.suffix == ".bin"]
    victim = max(chunks, key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-3])


def test_a_resumed_run_tells_from_the_first_moment_where_its_checkpoint_is(trainer):
    fit(trainer({"trainer.steps": 2}))
    again = trainer({"trainer.steps": 2, "trainer.resume": True})
    fit(again)
    assert read_run_file(again.out).checkpoint == str(again.out / "checkpoints/step-00000002")
