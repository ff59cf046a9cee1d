"""Callbacks: what they see of a run, what they decide, and that a resume knows nothing of it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest
import torch

from helix_kernel.checkpoint import load
from helix_kernel.errors import ArgumentError, DataError, HelixError
from helix_kernel.nesting import flatten
from helix_kernel.restore import open_model
from helix_train.callbacks.lr_finder import steepest
from helix_train.evaluation import evaluate_dataset
from helix_train.interruption import InterruptedRunError
from helix_train.progress import Progress

DRAWING = {"model.use": "noisy", "model.dropout": 0.3, "data.draws": True, "optimizer.lr": 1e-2}

GUARD = {
    "use": "spike-guard",
    "window": 5,
    "warm_up": 5,
    "threshold": 50.0,
    "patience": 2,
    "max_rollbacks": 1,
}


def fit(trainer):
    shown = io.StringIO()
    trainer.fit(Progress(shown))
    return shown.getvalue()


def state(out, step):
    return load(Path(out) / f"checkpoints/step-{step:08d}", as_torch=True)


def events(out):
    return [json.loads(line) for line in (Path(out) / "events.jsonl").read_text().splitlines()]


def losses(out):
    """Return what the logger csv has written."""
    with (out / "metrics.csv").open(newline="") as file:
        return [(row["step"], row["loss"]) for row in csv.DictReader(file)]


def spoil(trained, steps, factor=math.nan):
    """Multiply the loss at some steps, as a bad batch does."""
    trained.loss.register_forward_hook(
        lambda module, inputs, loss: loss * (factor if steps(trained) else 1.0)
    )


def assert_equal(left, right, path=""):
    if isinstance(left, dict):
        assert left.keys() == right.keys(), path
        for key in left:
            assert_equal(left[key], right[key], f"{path}/{key}")
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), path
    else:
        assert left == right, path


@pytest.mark.parametrize(
    "callback",
    [
        {"use": "ema", "decay": 0.9},
        {"use": "ema", "decay": 0.5, "every": 2, "warm_up": False},
        {"use": "early-stopping", "patience": 9},
        {"use": "spike-guard", "window": 6, "warm_up": 5},
        {"use": "lr-finder", "steps": 10, "lowest": 1e-3, "apply": True},
    ],
    ids=lambda callback: f"{callback['use']}-{len(callback)}",
)
def test_a_run_that_is_resumed_equals_one_that_is_not_to_the_bit(trainer, tmp_path, callback):
    changes = {
        **DRAWING,
        "trainer.steps": 7,
        "trainer.checkpoint_every": 2,
        "trainer.validate_every": 1,
        "trainer.accumulate": 2,
        "trainer.callbacks": [callback],
    }
    fit(trainer({**changes, "trainer.out": str(tmp_path / "whole")}))
    broken = {**changes, "trainer.out": str(tmp_path / "broken")}
    kill_after(trainer(broken), 4)
    fit(trainer({**broken, "trainer.resume": True}))
    assert_equal(state(tmp_path / "whole", 7), state(tmp_path / "broken", 7))
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]


def kill_after(trained, step, *, reseeds=0):
    """Train as far as a killed process would."""
    after_step = trained._after_step

    def die(*values):
        if trained.step > step and trained._batches.reseeds == reseeds:
            raise KeyboardInterrupt
        after_step(*values)

    trained._after_step = die
    with pytest.raises(KeyboardInterrupt):
        fit(trained)


class TestEMA:
    def test_it_is_the_average_of_its_formula_and_is_what_is_evaluated(self, trainer):
        trained = trainer(
            {"trainer.callbacks": [{"use": "ema", "decay": 0.8, "warm_up": False}], "trainer.steps": 5}
        )
        seen = []
        stepped = trained._after_step
        expected = {name: value.double() for name, value in trained.model.state_dict().items()}

        def after(*values):
            stepped(*values)
            for name, value in trained.model.state_dict().items():
                expected[name] = 0.8 * expected[name] + 0.2 * value.double()

        trained._after_step = after
        trained.model.register_forward_hook(
            lambda module, inputs, logits: (
                None
                if module.training
                else seen.append({name: value.clone() for name, value in module.state_dict().items()})
            )
        )
        fit(trained)
        for name, value in seen[-1].items():
            torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
            assert not torch.equal(value, trained.model.state_dict()[name])
        saved = state(trained.out, 5)
        assert_equal(flatten(saved["averaged"]), seen[-1])
        assert_equal(flatten(saved["model"]), dict(trained.model.state_dict()))

    def test_a_checkpoint_is_opened_with_it_unless_the_trained_weights_are_asked_for(self, trainer):
        trained = trainer({"trainer.callbacks": [{"use": "ema", "decay": 0.8}]})
        fit(trained)
        saved = state(trained.out, 6)
        averaged = open_model(trained.out).model.state_dict()
        assert_equal(flatten(saved["averaged"]), dict(averaged))
        trained_weights = open_model(trained.out, weights="trained").model.state_dict()
        assert_equal(dict(trained.model.state_dict()), dict(trained_weights))
        with pytest.raises(ArgumentError, match=r"'average'.*Did you mean 'averaged'"):
            open_model(trained.out, weights="average")

    def test_its_warm_up_forgets_the_first_weights(self, trainer):
        trained = trainer({"trainer.callbacks": [{"use": "ema", "decay": 0.999}], "trainer.steps": 1})
        first = trained.model.head.bias.detach().clone()
        fit(trained)
        average = flatten(state(trained.out, 1)["averaged"])["head.bias"]
        torch.testing.assert_close(average, first.lerp(trained.model.head.bias.detach(), 1 - 2 / 11))


@pytest.mark.parametrize("optimizer", ["schedule-free-adamw", "schedule-free-sgd"])
def test_the_average_of_a_schedule_free_optimizer_is_measured_and_kept(trainer, tmp_path, optimizer):
    changes = {
        **DRAWING,
        "optimizer.use": optimizer,
        "schedule.use": "constant",
        "trainer.steps": 6,
        "trainer.checkpoint_every": 2,
    }
    often = trainer({**changes, "trainer.validate_every": 1, "trainer.out": str(tmp_path / "often")})
    fit(often)
    seldom = trainer({**changes, "trainer.out": str(tmp_path / "seldom")})
    kill_after(seldom, 4)
    fit(trainer({**changes, "trainer.out": str(tmp_path / "seldom"), "trainer.resume": True}))
    one, other = state(tmp_path / "often", 6), state(tmp_path / "seldom", 6)
    assert_equal(one, other)
    assert not torch.equal(one["averaged"]["head"]["weight"], one["model"]["head"]["weight"])
    often.optimizer.eval()
    assert_equal(flatten(one["averaged"]), dict(often.model.named_parameters()))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.use": "schedule-free-adamw", "schedule.use": "constant"},
        {"trainer.callbacks": [{"use": "ema", "decay": 0.8}]},
    ],
    ids=["schedule-free", "ema"],
)
def test_a_weight_with_two_names_is_opened_as_it_was_evaluated(trainer, changes):
    trained = trainer({**changes, "model.use": "tied", "optimizer.lr": 0.05})
    result = trained.fit(Progress(io.StringIO()))
    opened = open_model(trained.out).model
    assert opened.head.weight is opened.embedding.weight
    assert evaluate_dataset(opened, trained.dataset).loss == result.evaluation.loss


def test_averages_of_two_callbacks_are_refused_since_a_checkpoint_has_one(trainer):
    with pytest.raises(ArgumentError, match=r"2 of trainer\.callbacks keep averaged weights.*ema, ema"):
        fit(trainer({"trainer.callbacks": [{"use": "ema", "decay": 0.8}, {"use": "ema", "decay": 0.9}]}))


class TestEarlyStopping:
    def test_it_ends_a_run_that_gets_no_better_with_a_checkpoint(self, trainer):
        trained = trainer(
            {
                "optimizer.lr": 0.0,
                "trainer.steps": 50,
                "trainer.validate_every": 2,
                "trainer.callbacks": [{"use": "early-stopping", "patience": 3}],
            }
        )
        shown = fit(trained)
        assert "validation_loss was best at step 2" in shown
        assert trained.step == 8
        assert state(trained.out, 8)["step"] == 8
        (event,) = events(trained.out)
        assert (event["step"], event["event"]) == (8, "ended")
        assert event["text"].startswith("early-stopping ends the run: validation_loss was best at step 2")

    def test_what_the_very_last_validation_says_is_told_too(self, trainer):
        stopping = {"use": "early-stopping", "patience": 1}
        changes = {"optimizer.lr": 0.0, "trainer.steps": 4, "trainer.validate_every": 2}
        changes["trainer.callbacks"] = [stopping]
        broken = trainer(changes)
        broken.model.register_forward_hook(lambda *_: broken.interrupt(15) if broken.step == 4 else None)
        broken.dataset.batch_size = 1
        with pytest.raises(InterruptedRunError):  # in the validation after the last step
            fit(broken)
        assert "early-stopping ends the run" in fit(trainer({**changes, "trainer.resume": True}))
        assert [event["event"] for event in events(broken.out)] == ["ended"]

    def test_a_finished_run_that_is_resumed_counts_its_last_validation_once(self, trainer):
        changes = {"optimizer.lr": 0.0, "trainer.steps": 4, "trainer.validate_every": 2}
        changes["trainer.callbacks"] = [{"use": "early-stopping", "patience": 2}]
        finished = trainer(changes)
        fit(finished)
        fit(trainer({**changes, "trainer.resume": True}))
        assert events(finished.out) == []
        longer = trainer({**changes, "trainer.resume": True, "trainer.steps": 50})
        assert "validation_loss was best at step 2" in fit(longer)
        assert longer.step == 6

    def test_it_needs_validations(self, trainer):
        with pytest.raises(ArgumentError, match=r"early-stopping goes by validations.*validate_every=0"):
            fit(trainer({"trainer.callbacks": [{"use": "early-stopping"}]}))

    def test_a_metric_that_is_not_measured_is_refused_with_the_nearest(self, trainer):
        changes = {"use": "early-stopping", "metric": "validation_los"}
        with pytest.raises(ArgumentError, match=r"'validation_los'.*Did you mean 'validation_loss'"):
            fit(trainer({"trainer.callbacks": [changes], "trainer.validate_every": 1}))


class TestSpikeGuard:
    def test_a_step_with_a_bad_loss_is_left_out_and_nothing_else(self, trainer, tmp_path):
        changes = {"optimizer.use": "sgd", "trainer.steps": 6, "trainer.callbacks": [GUARD]}
        guarded = trainer({**changes, "trainer.out": str(tmp_path / "guarded")})
        spoil(guarded, lambda run: run.step == 3)
        fit(guarded)
        by_hand = trainer({**changes, "trainer.out": str(tmp_path / "by-hand")})
        step = by_hand.optimizer.step
        by_hand.optimizer.step = lambda: None if by_hand.step == 3 else step()
        fit(by_hand)
        assert_equal(dict(guarded.model.state_dict()), dict(by_hand.model.state_dict()))
        (event,) = events(guarded.out)
        assert (event["step"], event["event"], event["text"]) == (3, "skipped", "skipped: loss is nan")
        lines = (guarded.out / "metrics.jsonl").read_text()
        assert "NaN" not in lines
        assert '"step": 4,' not in lines.replace('"step": 4, "validation', "")

    @pytest.mark.parametrize("factor", [50.0, math.inf, math.nan])
    def test_a_finite_jump_is_a_spike_once_there_is_something_to_compare_with(self, trainer, factor):
        trained = trainer({"trainer.steps": 9, "trainer.callbacks": [GUARD]})
        spoil(trained, lambda run: run.step == 7, factor)
        fit(trained)
        assert [event["step"] for event in events(trained.out)] == [7]

    def test_spikes_in_a_row_roll_the_run_back_and_on_with_other_data(self, trainer, tmp_path):
        changes = {
            **DRAWING,
            "trainer.steps": 9,
            "trainer.checkpoint_every": 2,
            "trainer.callbacks": [GUARD],
        }
        trained = trainer({**changes, "trainer.out": str(tmp_path / "whole")})
        spoil(trained, lambda run: run.step >= 5 and run._batches.reseeds == 0)
        fit(trained)
        found = events(trained.out)
        assert [event["event"] for event in found] == ["skipped", "spike", "rolled-back"]
        assert trained.step == 9
        steps = [
            json.loads(line)["step"] for line in (trained.out / "metrics.jsonl").read_text().splitlines()
        ]
        assert sorted(set(steps)) == list(range(1, 10))
        saved = state(trained.out, 9)
        assert saved["data"]["reseeds"] == 1
        again = {
            **changes,
            "trainer.out": str(tmp_path / "whole"),
            "trainer.resume": str(trained.out / "checkpoints/step-00000008"),
        }
        assert_equal_after_resume(trainer, again, tmp_path, saved)

    def test_a_run_that_is_killed_after_a_rollback_goes_on_with_the_same_other_data(self, trainer, tmp_path):
        changes = {
            **DRAWING,
            "trainer.steps": 9,
            "trainer.checkpoint_every": 4,
            "trainer.callbacks": [GUARD | {"max_rollbacks": 2}, {"use": "ema"}],
            "trainer.loggers": [{"use": "csv"}],
        }

        def spoilt(out):
            trained = trainer({**changes, "trainer.out": str(tmp_path / out)})
            spoil(trained, lambda run: run.step >= 5 and run._batches.reseeds < 2)
            return trained

        fit(spoilt("whole"))
        broken = spoilt("broken")
        kill_after(broken, 5, reseeds=2)
        # What went wrong does not come again, as where a machine did: nothing else leads to the other data.
        fit(trainer({**changes, "trainer.out": str(tmp_path / "broken"), "trainer.resume": True}))
        assert state(tmp_path / "broken", 8)["data"]["reseeds"] == 2
        assert_equal(state(tmp_path / "whole", 9), state(tmp_path / "broken", 9))
        lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
        assert lines[0] == lines[1]
        assert losses(tmp_path / "whole") == losses(tmp_path / "broken")

    def test_what_a_rollback_undid_no_logger_keeps_though_the_run_then_fails(self, trainer):
        trained = trainer(
            {
                "trainer.steps": 9,
                "trainer.checkpoint_every": 4,
                "trainer.callbacks": [GUARD],
                "trainer.loggers": [{"use": "csv"}],
            }
        )
        spoil(trained, lambda run: run.step >= 5 or run._batches.reseeds)
        with pytest.raises(HelixError, match="after 1 rollbacks"):
            fit(trained)
        assert [step for step, _ in losses(trained.out)] == ["1", "2", "3", "4"]

    def test_what_an_earlier_run_remembers_of_a_rollback_is_no_concern_of_the_next(self, trainer):
        trained = trainer({"trainer.checkpoint_every": 2})
        trained.out.mkdir()
        (trained.out / "rollback.json").write_text('{"step": 2, "reseeds": 1}')
        kill_after(trained, 2)
        fit(trainer({"trainer.resume": True}))
        assert int(state(trained.out, 6)["data"]["reseeds"]) == 0

    def test_a_damaged_memory_of_a_rollback_is_said_so(self, trainer):
        trained = trainer()
        trained.out.mkdir()
        (trained.out / "rollback.json").write_text("nonsense")
        with pytest.raises(DataError, match=r"rollback\.json is damaged; remove it"):
            fit(trained)

    def test_without_a_checkpoint_there_is_nothing_to_go_back_to(self, trainer):
        trained = trainer({"trainer.callbacks": [GUARD]})
        spoil(trained, lambda run: run.step >= 2)
        with pytest.raises(HelixError, match="asks to roll back, but there is no checkpoint yet"):
            fit(trained)

    def test_without_one_of_its_own_a_run_goes_back_to_the_one_that_it_began_with(self, trainer, tmp_path):
        fit(trainer({"trainer.out": str(tmp_path / "first"), "trainer.steps": 2}))
        changes = {
            "trainer.resume": str(tmp_path / "first/checkpoints/step-00000002"),
            "trainer.callbacks": [GUARD],
        }
        trained = trainer(changes)
        spoil(trained, lambda run: run.step >= 3 and run._batches.reseeds == 0)
        fit(trained)
        assert [event["event"] for event in events(trained.out)] == ["skipped", "spike", "rolled-back"]
        assert trained.step == 6

    def test_gradients_that_overflow_by_the_scale_of_fp16_are_no_spikes(self, trainer):
        trained = trainer({"trainer.precision": "fp16", "trainer.callbacks": [GUARD]})
        backward = trained._accumulation.next_step

        def overflow():
            losses = backward()
            if trained.step < 4:
                trained.model.head.weight.grad.fill_(math.inf)
            return losses

        trained._accumulation.next_step = overflow
        fit(trained)
        assert events(trained.out) == []
        assert state(trained.out, 6)["loss_scale"]["scale"] == 2.0**12

    def test_it_does_not_roll_back_for_ever(self, trainer):
        trained = trainer({"trainer.checkpoint_every": 1, "trainer.callbacks": [GUARD]})
        spoil(trained, lambda run: run.step >= 3)
        with pytest.raises(HelixError, match=r"after 1 rollbacks \(spike-guard.max_rollbacks\)"):
            fit(trained)
        last = state(trained.out, 3)
        assert all(bool(value.isfinite().all()) for value in flatten(last["model"]).values())


def assert_equal_after_resume(trainer, changes, tmp_path, expected):
    elsewhere = {**changes, "trainer.out": str(tmp_path / "elsewhere")}
    fit(trainer(elsewhere))
    assert_equal(state(tmp_path / "elsewhere", 9), expected)


class TestLRFinder:
    def test_it_leaves_the_run_as_it_found_it(self, trainer, tmp_path):
        changes = {**DRAWING, "trainer.accumulate": 2}
        finder = {"trainer.callbacks": [{"use": "lr-finder", "steps": 20, "lowest": 1e-4}]}
        searched = trainer({**changes, **finder, "trainer.out": str(tmp_path / "searched")})
        fit(searched)
        plain = trainer({**changes, "trainer.out": str(tmp_path / "plain")})
        fit(plain)
        assert_equal(dict(searched.model.state_dict()), dict(plain.model.state_dict()))
        curve = [json.loads(line) for line in (searched.out / "lr_finder.jsonl").read_text().splitlines()]
        assert curve[0]["lr"] == pytest.approx(1e-4)
        assert events(searched.out)[0]["event"] == "lr-finder"

    def test_the_steepest_fall_is_found(self):
        trials = [(10.0**e, loss) for e, loss in [(-4, 5.0), (-3, 4.9), (-2, 3.0), (-1, 1.0), (0, 9.0)]]
        assert steepest(trials) == pytest.approx(1e-2)
        assert steepest([(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]) is None

    def test_a_rate_that_is_applied_outlives_a_resume(self, trainer):
        finder = {"use": "lr-finder", "steps": 12, "lowest": 1e-3, "apply": True}
        changes = {"trainer.callbacks": [finder], "schedule.use": "constant", "trainer.checkpoint_every": 3}
        trained = trainer(changes)
        fit(trained)
        found = state(trained.out, 6)["callbacks"]["lr-finder"]["found"]
        assert trained.optimizer.param_groups[0]["lr"] == found != 0.1


DIARY = {
    **DRAWING,
    "trainer.steps": 7,
    "trainer.checkpoint_every": 2,
    "trainer.validate_every": 3,
    "trainer.callbacks": [{"use": "toy-lm:diary", "skip": 3, "stop": 6}],
}


class TestThirdParty:
    """A callback of a plugin that is not ours, by the config alone."""

    def test_it_hears_of_everything_in_order_and_decides(self, trainer):
        trained = trainer(DIARY)
        shown = fit(trained)
        told = [(1, "judge"), (1, "stepped"), (2, "judge"), (2, "stepped"), (3, "judge"), (3, "stepped")]
        told += [(3, "validated"), (4, "judge"), (5, "judge"), (5, "stepped"), (6, "judge"), (6, "stepped")]
        told += [(6, "validated"), (6, "end")]
        (diary,) = trained.callbacks
        assert diary.heard == [(0, "begin"), *told]
        assert "the diary is full" in shown
        lines = [json.loads(line) for line in (trained.out / "metrics.jsonl").read_text().splitlines()]
        assert [line["pages"] for line in lines if "pages" in line] == [2, 4, 6, 9, 11]

    def test_its_state_outlives_a_kill(self, trainer, tmp_path):
        fit(trainer({**DIARY, "trainer.out": str(tmp_path / "whole")}))
        broken = {**DIARY, "trainer.out": str(tmp_path / "broken")}
        kill_after(trainer(broken), 4)
        fit(trainer({**broken, "trainer.resume": True}))
        assert_equal(state(tmp_path / "whole", 6), state(tmp_path / "broken", 6))


@pytest.mark.parametrize(
    ("callbacks", "note"),
    [
        ([], "note: callback ema of the checkpoint is left out now"),
        ([{"use": "ema"}, {"use": "spike-guard"}], "note: callback spike-guard is not in the checkpoint"),
    ],
    ids=["left-out", "added"],
)
def test_callbacks_that_came_or_went_are_noted_on_resume(trainer, callbacks, note):
    fit(trainer({"trainer.callbacks": [{"use": "ema"}], "trainer.steps": 2, "trainer.checkpoint_every": 1}))
    shown = fit(trainer({"trainer.callbacks": callbacks, "trainer.steps": 3, "trainer.resume": True}))
    assert note in shown
