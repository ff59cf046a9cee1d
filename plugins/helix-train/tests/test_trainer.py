"""The training loop: what a step computes, when it looks around, and how it ends."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import attrs
import pytest
import torch

import helix_train.reporting
import helix_train.trainer
from helix_kernel.checkpoint import Checkpoint, load
from helix_kernel.errors import ArgumentError, CheckpointError, ConfigError, HelixError
from helix_train.config import TrainerConfig
from helix_train.progress import Progress
from helix_train.report import write_report
from helix_train.run_file import read_run_file
from helix_train.state import parameter_groups


def fit(trainer):
    return trainer.fit(Progress(io.StringIO()))


def records(out, key="loss"):
    lines = (Path(out) / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if key in record]


def checkpoints(out):
    return sorted(int(path.name[5:]) for path in (Path(out) / "checkpoints").glob("step-*"))


def weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def assert_equal(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_the_loop_is_forward_loss_backward_clip_step_and_schedule_to_the_bit(trainer):
    trained = trainer({"model.dropout": 0.3, "trainer.clip_norm": 0.05, "trainer.seed": 3})
    torch.manual_seed(3)
    model = type(trained.model)(dropout=0.3)
    optimizer = torch.optim.AdamW(
        parameter_groups(model), lr=0.1, weight_decay=trained.optimizer.defaults["weight_decay"]
    )
    model.train()
    expected = []
    for step in range(6):
        factor = (step + 1) / 2 if step < 2 else trained.schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * factor
        batch = trained.dataset.batch(seed=3, step=step)
        logits = model(batch.inputs)
        loss = trained.loss(logits, batch.targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.05)
        optimizer.step()
        optimizer.zero_grad()
        expected.append((loss.item(), float(norm), 0.1 * factor))
    trained = trainer({"model.dropout": 0.3, "trainer.clip_norm": 0.05, "trainer.seed": 3})
    fit(trained)
    found = records(trained.out)
    assert [(r["loss"], r["grad_norm"], r["lr"]) for r in found] == expected
    assert_equal(weights(trained), model.state_dict())


def test_micro_batches_average_to_one_large_batch(trainer, tmp_path):
    whole = trainer({"data.batch_size": 12, "trainer.out": str(tmp_path / "whole")})
    parts = trainer({"data.batch_size": 4, "trainer.accumulate": 3, "trainer.out": str(tmp_path / "parts")})
    fit(whole), fit(parts)
    assert parts.dataset.steps == list(range(18))
    for one, other in zip(records(whole.out), records(parts.out), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


@pytest.mark.parametrize(("clip_norm", "moved"), [(0.0, None), (1e6, None), (0.25, 0.25)])
def test_clipping_bounds_the_norm_and_zero_means_no_limit(trainer, clip_norm, moved):
    rates = {"optimizer.use": "sgd", "optimizer.lr": 1.0, "schedule.warmup_steps": 0}
    trained = trainer({**rates, "trainer.steps": 1, "trainer.clip_norm": clip_norm})
    before = weights(trained)
    fit(trained)
    update = torch.cat([(before[name] - value).flatten() for name, value in weights(trained).items()])
    (record,) = records(trained.out)
    assert record["grad_norm"] > 0.25
    assert float(update.norm()) == pytest.approx(moved or record["grad_norm"], rel=1e-4)


def test_what_is_due_happens_at_its_steps_and_after_the_last(trainer):
    trained = trainer(
        {
            "trainer.steps": 7,
            "trainer.log_every": 3,
            "trainer.checkpoint_every": 2,
            "trainer.validate_every": 4,
        }
    )
    result = fit(trained)
    assert [r["step"] for r in records(trained.out)] == [3, 6, 7]
    assert [r["step"] for r in records(trained.out, "validation_loss")] == [4, 7]
    assert checkpoints(trained.out) == [4, 6, 7]  # of which three are kept
    assert result.step == 7
    assert result.checkpoint == trained.out / "checkpoints/step-00000007"
    assert result.evaluation.loss == records(trained.out, "validation_loss")[-1]["validation_loss"]
    assert result.plot == trained.out / "loss.png"


def test_without_validate_every_the_last_step_alone_is_validated(trainer):
    trained = trainer()
    fit(trained)
    assert [r["step"] for r in records(trained.out, "validation_loss")] == [6]


def test_data_that_hold_nothing_out_are_not_validated(trainer):
    trained = trainer({"data.n_held_out": 0, "trainer.validate_every": 2})
    assert fit(trained).evaluation is None
    assert records(trained.out, "validation_loss") == []


def test_validation_changes_nothing_of_the_training(trainer, tmp_path):
    changes = {"model.use": "noisy", "model.dropout": 0.5, "data.draws": True}
    often = trainer({**changes, "trainer.validate_every": 1, "trainer.out": str(tmp_path / "often")})
    fit(often)
    never = trainer({**changes, "data.n_held_out": 0, "trainer.out": str(tmp_path / "never")})
    fit(never)
    assert_equal(weights(often), weights(never))
    assert often.model.training


def test_equal_configs_write_equal_metrics_and_other_seeds_do_not(trainer, tmp_path):
    written = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        out = tmp_path / name
        fit(
            trainer({"model.dropout": 0.2, "data.draws": True, "trainer.seed": seed, "trainer.out": str(out)})
        )
        written.append((out / "metrics.jsonl").read_bytes())
    assert written[0] == written[1] != written[2]


class TestNotFinite:
    @pytest.mark.parametrize("log_every", [1, 100])
    def test_a_loss_stops_the_run_before_its_step_is_taken_or_saved(self, trainer, log_every, capsys):
        trained = trainer({"trainer.log_every": log_every, "trainer.checkpoint_every": 1})
        trained.loss.register_forward_hook(
            lambda module, inputs, loss: loss * (math.nan if trained.step == 3 else 1)
        )
        with pytest.raises(HelixError, match=r"loss is nan .* after 3 steps; .*optimizer.lr") as caught:
            fit(trained)
        assert caught.value.exit_code == 1
        assert checkpoints(trained.out) == [1, 2, 3]
        last = load(trained.out / "checkpoints/step-00000003", as_torch=True)
        assert all(bool(value.isfinite().all()) for value in last["model"]["head"].values())
        assert_equal(last["model"]["head"], dict(trained.model.head.state_dict()))

    def test_a_gradient_stops_it_too(self, trainer):
        trained = trainer()
        trained.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(HelixError, match=r"gradient's norm (inf|nan) after 0 steps"):
            fit(trained)
        assert checkpoints(trained.out) == []

    def test_weights_that_a_step_threw_away_are_not_saved(self, trainer):
        trained = trainer({"data.n_held_out": 0, "trainer.checkpoint_every": 2})

        def throw_away(optimizer, args, kwargs):
            if trained.step == 3:
                trained.model.head.bias.data[0] = math.inf

        trained.optimizer.register_step_post_hook(throw_away)
        with pytest.raises(HelixError, match="weights are not finite after 4 steps"):
            fit(trained)
        assert checkpoints(trained.out) == [2]

    def test_a_held_out_loss_is_not_written_down(self, trainer):
        trained = trainer({"trainer.validate_every": 1})
        trained.model.register_forward_hook(
            lambda module, inputs, logits: logits if module.training else logits * math.nan
        )
        with pytest.raises(HelixError, match="held-out loss is nan after 1 steps"):
            fit(trained)
        assert "NaN" not in (trained.out / "metrics.jsonl").read_text()


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"trainer.device": "cuda:77"}, "trainer.device is 'cuda:77', which is not available here"),
            ({"trainer.device": "abacus"}, "trainer.device is 'abacus', which is not available here"),
            ({"trainer.activation_checkpointing": True}, "Model has no set_activation_checkpointing"),
            ({"loss.reduction": "none"}, "loss.reduction is 'none'"),
            ({"model.use": "stateless", "trainer.chunk_len": 2}, r"Stateless has no init_state\(\)"),
        ],
        ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
    )
    def test_they_are_refused_before_anything_is_written(self, trainer, changes, message, tmp_path):
        with pytest.raises(ArgumentError, match=message) as caught:
            trainer(changes)
        assert caught.value.exit_code == 2
        assert list(tmp_path.iterdir()) == []

    def test_a_precision_that_does_not_exist_is_no_silent_fp32(self, trainer):
        config = trainer().config
        with pytest.raises(ArgumentError, match=r"trainer.precision is 'bf61'.*Did you mean 'bf16'"):
            TrainerConfig(config=config, steps=1, precision="bf61")

    def test_neither_is_a_gradient_that_does_not_exist(self, trainer):
        config = trainer().config
        with pytest.raises(ArgumentError, match=r"trainer.gradient is 'exakt'.*Did you mean 'exact'"):
            TrainerConfig(config=config, steps=1, gradient="exakt")

    def test_blocks_are_not_recomputed_within_chunks(self, trainer):
        changes = {"trainer.chunk_len": 2, "trainer.activation_checkpointing": True}
        with pytest.raises(ConfigError, match="activation_checkpointing is true with"):
            trainer(changes)
        with pytest.raises(ArgumentError, match="leave one of them out"):
            TrainerConfig(config=trainer().config, steps=1, chunk_len=2, activation_checkpointing=True)

    @pytest.mark.parametrize("other", [{"chunk_len": 2}, {"parallel": "fsdp2"}], ids=str)
    def test_logits_are_not_made_in_parts_within_chunks_nor_shards(self, trainer, other):
        with pytest.raises(ArgumentError, match=r"trainer.logits_chunk=4 does not go with trainer\."):
            TrainerConfig(config=trainer().config, steps=1, logits_chunk=4, **other)


class TestChunks:
    """What the gradients are is for test_streaming; here, that the trainer takes them."""

    def test_exact_gradients_train_as_whole_sequences_do(self, trainer, tmp_path):
        found = []
        for chunk_len in (0, 4):
            trained = trainer(
                {"trainer.chunk_len": chunk_len, "trainer.out": str(tmp_path / f"in-{chunk_len}")}
            )
            fit(trained)
            found.append([(r["loss"], r["grad_norm"]) for r in records(trained.out)])
        for whole, chunked in zip(*found, strict=True):
            assert chunked == pytest.approx(whole, rel=1e-4)

    def test_truncated_gradients_are_others(self, trainer, tmp_path):
        norms = set()
        for gradient in ("exact", "truncated"):
            changes = {"trainer.gradient": gradient, "trainer.out": str(tmp_path / gradient)}
            trained = trainer({"trainer.chunk_len": 2, "trainer.steps": 1, **changes})
            fit(trained)
            (record,) = records(trained.out)
            norms.add(record["grad_norm"])
        assert len(norms) == 2


class TestBatches:
    def test_a_mask_is_given_to_the_loss(self, trainer, monkeypatch):
        import toy_lm

        batch = toy_lm.Data.batch

        def masked(self, *, seed, step):
            made = batch(self, seed=seed, step=step)
            made.mask = torch.arange(self.seq_len).expand(self.batch_size, -1) == 2
            return made

        monkeypatch.setattr(toy_lm.Data, "batch", masked)
        trained = trainer({"trainer.steps": 1})
        first = masked(trained.dataset, seed=0, step=0)
        with torch.no_grad():
            expected = torch.nn.functional.cross_entropy(
                trained.model(first.inputs)[:, 2], first.targets[:, 2]
            )
        fit(trained)
        (record,) = records(trained.out)
        assert record["loss"] == pytest.approx(float(expected), rel=1e-6)

    def test_targets_may_be_classes_of_whole_rows(self, trainer, monkeypatch):
        import toy_lm

        forward, batch = toy_lm.Model.forward, toy_lm.Data.batch

        def one_class_a_row(self, *, seed, step):
            made = batch(self, seed=seed, step=step)
            made.targets = made.targets[:, -1]
            made.input_mask = torch.arange(self.seq_len).expand(self.batch_size, -1) < 4
            return made

        def of_rows(self, ids, *, mask):
            assert mask.sum() == 4 * len(ids)
            return forward(self, ids)[:, 3]

        monkeypatch.setattr(toy_lm.Model, "forward", of_rows)
        monkeypatch.setattr(toy_lm.Data, "batch", one_class_a_row)
        monkeypatch.setattr(toy_lm.Data, "tokens_per_byte", None, raising=False)
        monkeypatch.setattr(
            toy_lm.Data,
            "evaluation_batches",
            lambda self: [one_class_a_row(self, seed=1, step=0)],
            raising=False,
        )
        trained = trainer()
        result = fit(trained)
        first, *_, last = records(trained.out)
        assert last["loss"] < first["loss"]
        assert "bits_per_byte" not in last
        (validated,) = records(trained.out, "validation_loss")
        assert validated["validation_accuracy"] == result.evaluation.accuracy
        assert result.evaluation.n_targets == trained.dataset.batch_size

    @pytest.mark.parametrize("chunk_len", [0, 4])
    def test_what_the_model_adds_to_the_loss_is_minimised_and_recorded_apart(
        self, trainer, monkeypatch, chunk_len
    ):
        import toy_lm

        changes = {"trainer.steps": 1, "trainer.accumulate": 2, "trainer.chunk_len": chunk_len}
        plain = trainer(changes)
        weight = plain.model.head.weight.detach().clone()
        fit(plain)
        monkeypatch.setattr(
            toy_lm.Model, "auxiliary_loss", lambda self: 3 * self.head.weight.square().sum(), raising=False
        )
        adding = trainer({**changes, "trainer.out": str(plain.out) + "-adding", "trainer.clip_norm": 0})
        fit(adding)
        (one,), (other,) = records(plain.out), records(adding.out)
        assert "auxiliary_loss" not in one
        assert other["loss"] == one["loss"]
        assert other["auxiliary_loss"] == pytest.approx(3 * float(weight.square().sum()), rel=1e-5)
        assert other["grad_norm"] > 2 * one["grad_norm"]


def test_bf16_runs_the_forward_pass_in_bf16_and_keeps_weights_in_fp32(trainer):
    trained = trainer({"trainer.precision": "bf16"})
    seen = set()
    trained.model.register_forward_hook(
        lambda module, inputs, logits: seen.add((module.training, logits.dtype))
    )
    fit(trained)
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {value.dtype for value in weights(trained).values()} == {torch.float32}


def test_activation_checkpointing_is_switched_on_in_the_model(trainer, monkeypatch):
    import toy_lm

    switched = []

    def switch(self, *, enabled):
        switched.append(enabled)

    monkeypatch.setattr(toy_lm.Model, "set_activation_checkpointing", switch, raising=False)
    trainer({"trainer.activation_checkpointing": True})
    assert switched == [True]


def test_only_bytes_are_told_in_bits(trainer, monkeypatch):
    import toy_lm

    monkeypatch.setattr(toy_lm.Data, "tokens_per_byte", 0.5, raising=False)
    trained = trainer({"trainer.steps": 1})
    result = fit(trained)
    (record,), (validated,) = records(trained.out), records(trained.out, "validation_loss")
    assert "bits_per_byte" not in record
    expected = validated["validation_loss"] / math.log(2) / 2
    assert validated["validation_bits_per_byte"] == result.evaluation.bits_per_byte == pytest.approx(expected)


@pytest.mark.parametrize(("own", "needed", "fits"), [(256, 257, False), (257, 257, True), (300, 257, True)])
def test_a_model_with_too_few_ids_for_the_data_is_refused(trainer, monkeypatch, own, needed, fits):
    import toy_lm

    monkeypatch.setattr(toy_lm.Model, "vocab_size", own, raising=False)
    monkeypatch.setattr(toy_lm.Data, "vocab_size", needed, raising=False)
    if fits:
        trainer()
    else:
        with pytest.raises(
            ArgumentError, match=r"256 ids and the data have 257; raise model.vocab_size by 1"
        ):
            trainer()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_however_a_run_ends_its_files_are_closed_and_the_terminal_is_restored(trainer, error):
    trained = trainer()

    def interrupt(*, seed, step):
        raise error

    trained.dataset.batch = interrupt
    closed = []
    progress = Progress(io.StringIO())
    progress.close = lambda: closed.append(True)
    with pytest.raises(error):
        trained.fit(progress)
    assert closed == [True]
    assert trained._reporter._recorder._metrics.closed
    assert trained._reporter._recorder._timing.closed


@pytest.mark.parametrize(
    ("changes", "in_bits"),
    [
        ({}, True),
        ({"loss.label_smoothing": 0.1}, False),
        ({"loss.reduction": "sum", "optimizer.lr": 1e-3}, False),
    ],
    ids=["mean", "label-smoothing", "sum"],
)
def test_only_a_mean_over_bytes_is_told_in_bits(trainer, changes, in_bits):
    trained = trainer({**changes, "trainer.steps": 1})
    fit(trained)
    (record,) = records(trained.out)
    assert ("bits_per_byte" in record) == in_bits
    if in_bits:
        assert record["bits_per_byte"] == record["loss"] / math.log(2)


def test_a_missing_picture_is_said_with_the_command_that_mends_it(trainer, progress, monkeypatch):
    monkeypatch.setattr(helix_train.reporting, "draw_loss_curve", lambda records, path: None)
    assert trainer({"trainer.steps": 1}).fit(progress).plot is None
    shown = progress.stream.getvalue()
    assert "report.html shows the loss curve; for loss.png too: pip install 'helix-train[plot]'" in shown


def test_the_run_says_what_it_trains_on_what(trainer, progress):
    trainer().fit(progress)
    head = progress.stream.getvalue().splitlines()[:2]
    n_parameters = 256 * 8 + 8 * 256 + 256
    assert head == ["toy data", f"model: {n_parameters:,} parameters on cpu; ops by the references"]


def test_checkpoints_in_the_background_and_of_changes_only_are_the_same(trainer, tmp_path):
    plain = trainer({"trainer.checkpoint_every": 2, "trainer.out": str(tmp_path / "plain")})
    other = trainer(
        {
            "trainer.checkpoint_every": 2,
            "trainer.checkpoint_async": True,
            "trainer.checkpoint_incremental": True,
            "trainer.out": str(tmp_path / "other"),
        }
    )
    result = fit(plain), fit(other)
    assert checkpoints(plain.out) == checkpoints(other.out) == [2, 4, 6]
    for step in (2, 4, 6):
        name = f"checkpoints/step-{step:08d}"
        one = load(tmp_path / "plain" / name, as_torch=True)["model"]
        assert str(one) == str(load(tmp_path / "other" / name, as_torch=True)["model"])
    assert result[1].checkpoint == tmp_path / "other/checkpoints/step-00000006"


def test_a_checkpoint_that_could_not_be_written_in_the_background_ends_the_run(trainer, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("helix_kernel.checkpoint.directory.write_file", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        fit(trainer({"trainer.checkpoint_every": 1, "trainer.checkpoint_async": True}))


def test_the_best_and_the_round_checkpoints_stay(trainer, monkeypatch):
    trained = trainer(
        {
            "trainer.checkpoint_every": 1,
            "trainer.validate_every": 1,
            "trainer.keep": 1,
            "trainer.keep_best": 1,
            "trainer.keep_every": 4,
        }
    )
    losses = iter([5.0, 3.0, 4.0, 6.0, 7.0, 8.0])
    evaluate = helix_train.trainer.evaluate_dataset
    monkeypatch.setattr(
        helix_train.trainer,
        "evaluate_dataset",
        lambda *arguments, **named: attrs.evolve(evaluate(*arguments, **named), loss=next(losses)),
    )
    fit(trained)
    assert checkpoints(trained.out) == [2, 4, 6]
    metrics = Checkpoint.open(Path(trained.out) / "checkpoints/step-00000002").attributes["metrics"]
    assert metrics["held_out_loss"] == 3.0
    assert metrics["loss"] > 0


def test_the_best_need_something_to_be_the_best_by():
    with pytest.raises(ArgumentError, match=r"keep_best=2 goes by the held-out loss.*validate_every=0"):
        TrainerConfig(config=None, steps=1, keep_best=2)


def test_a_checkpoint_says_how_long_its_run_took_with_what_came_before(trainer, tmp_path):
    first = trainer({"trainer.checkpoint_every": 6, "trainer.out": str(tmp_path / "run")})
    fit(first)
    path = tmp_path / "run/checkpoints/step-00000006"
    attributes = Checkpoint.open(path).attributes
    assert 0 < attributes["wall_time"] < 600
    assert attributes["saved_at"].startswith("20")
    longer = {"trainer.steps": 8, "trainer.resume": True, "trainer.out": str(tmp_path / "run")}
    fit(trainer(longer))
    later = Checkpoint.open(tmp_path / "run/checkpoints/step-00000008").attributes
    assert later["wall_time"] > attributes["wall_time"]


class TestWhatARunLeaves:
    def test_run_json_and_a_report_tell_how_it_ended(self, trainer, monkeypatch):
        monkeypatch.setattr(helix_train.reporting, "write_report", write_report)
        trained = trainer(
            {"trainer.measure_speed": True, "trainer.samples": 2, "trainer.checkpoint_every": 2}
        )
        fit(trained)
        record = read_run_file(trained.out)
        assert (record.status, record.step, record.steps) == ("done", 6, 6)
        assert record.flops_per_step > 0
        assert record.tokens_per_step == 4 * 6
        assert record.checkpoint.endswith("step-00000006")
        assert len(record.samples) == 2
        page = (trained.out / "report.html").read_text()
        assert "toy" in page
        timing = [json.loads(line) for line in (trained.out / "timing.jsonl").read_text().splitlines()]
        assert all(line["mfu"] > 0 and 0 <= line["data_wait"] <= 1 for line in timing)

    def test_a_failure_is_in_run_json_too(self, trainer):
        trained = trainer()
        trained.model.head.weight.register_hook(lambda gradient: gradient * math.inf)
        with pytest.raises(HelixError):
            fit(trained)
        record = read_run_file(trained.out)
        assert record.status == "failed"
        assert "gradient's norm" in record.error

    def test_measuring_changes_no_bit_of_the_run(self, trainer, tmp_path):
        changes = {"model.dropout": 0.3, "data.draws": True}
        for name, measured in (("with", True), ("without", False)):
            out = str(tmp_path / name)
            more = {"trainer.measure_speed": measured, "trainer.samples": int(measured), "trainer.out": out}
            fit(trainer({**changes, **more}))
        lines = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
        assert lines[0] == lines[1]


def test_metrics_of_held_out_predictions_are_recorded_beside_the_loss(trainer):
    trained = trainer({"trainer.metrics": [{"use": "accuracy"}, {"use": "perplexity"}]})
    result = fit(trained)
    (validated,) = records(trained.out, "validation_loss")
    assert 0 <= validated["validation_accuracy"] <= 1
    assert validated["validation_perplexity"] == pytest.approx(math.exp(result.evaluation.loss), rel=1e-5)


def test_what_modules_measure_of_themselves_is_recorded(trainer, monkeypatch):
    import toy_lm

    monkeypatch.setattr(toy_lm.Model, "measurements", lambda self: {"norm": 2.0}, raising=False)
    trained = trainer({"trainer.steps": 1})
    fit(trained)
    assert records(trained.out)[0]["norm"] == 2.0


def test_steps_that_are_asked_for_are_profiled(trainer):
    trained = trainer({"trainer.profile_steps": [2, 3]})
    fit(trained)
    assert sorted(path.name for path in (trained.out / "profile").iterdir()) == [
        "ops-2-3.txt",
        "trace-2-3.json",
    ]


def test_compressed_checkpoints_go_on_as_others_do(trainer, tmp_path):
    changes = {"trainer.checkpoint_every": 3, "trainer.checkpoint_compression": "bitshuffle-lz4"}
    fit(trainer(changes))
    again = trainer({**changes, "trainer.steps": 7, "trainer.resume": True})
    fit(again)
    assert checkpoints(again.out) == [3, 6, 7]
