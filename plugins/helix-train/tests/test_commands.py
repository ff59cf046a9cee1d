"""The commands `helix train`, `helix eval` and `helix generate`, as a person or a script calls them."""

from __future__ import annotations

import json
import math
import os
import pty
import sys
from contextlib import suppress
from pathlib import Path

import attrs
import pytest
import tomli_w
import toy_lm

from helix_kernel.cli import main
from helix_kernel.registry import Registry
from helix_kernel.restore import open_model
from helix_train.evaluation import evaluate_stream
from helix_train.generation import generate_bytes


@pytest.fixture
def helix(installed, capsysbinary, tmp_path, monkeypatch):
    """Run a command; returns its exit code, standard output and standard error."""
    monkeypatch.setenv("HELIX_CACHE_DIR", str(tmp_path / "cache"))

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        return ended.value.code, out, err.decode()

    return run


@pytest.fixture
def config(table, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(table))
    return path


@pytest.fixture
def run(helix, config, tmp_path):
    """The directory of a finished run."""
    assert helix("train", config)[0] == 0
    return tmp_path / "run"


def read_all(controller):
    """Return what a terminal was shown; a read gives no more than what one write left."""
    shown = b""
    with suppress(OSError):  # Linux's way to say that the other side is closed
        while piece := os.read(controller, 1 << 16):
            shown += piece
    return shown


class TestTrain:
    def test_its_json_says_where_everything_lies(self, helix, config, tmp_path):
        code, out, err = helix("train", config, "trainer.steps=3", "--json")
        assert code == 0
        found = json.loads(out)
        last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
        assert found["step"] == 3
        assert found["bits_per_byte"] == last["validation_bits_per_byte"]
        assert Path(found["checkpoint"]) == tmp_path / "run/checkpoints/step-00000003"
        assert all(Path(found[key]).exists() for key in ("checkpoint", "metrics", "report", "plot"))
        assert "step 3/3" in err

    def test_without_matplotlib_the_report_alone_is_named(self, helix, config, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        _, out, _ = helix("train", config, "trainer.steps=1")
        lines = dict(line.split(maxsplit=1) for line in out.decode().splitlines())
        assert "plot" not in lines
        assert "<svg" in Path(lines["report"]).read_text()

    def test_without_json_it_prints_the_same_for_people(self, helix, config, tmp_path):
        _, out, _ = helix("train", config, "data.n_held_out=0")
        lines = dict(line.split(maxsplit=1) for line in out.decode().splitlines() if "per byte" not in line)
        assert lines["step"] == "6"
        assert lines["metrics"] == str(tmp_path / "run/metrics.jsonl")
        assert b"bits per byte  -\n" in out

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("trainer.device=cuda:77", "trainer.device is 'cuda:77', which is not available here"),
            ("trainer.precision=bf61", "trainer.precision"),
            ("trainer.steps=0", "trainer.steps"),
            ("trainer.resume=true", "there is no checkpoint"),
        ],
    )
    def test_wrong_input_is_one_error_and_writes_nothing(self, helix, config, override, message, tmp_path):
        code, out, err = helix("train", config, override)
        assert code == 2
        assert message in err
        assert "Traceback" not in err
        assert out == b""
        assert not (tmp_path / "run").exists()

    def test_a_missing_section_is_named(self, helix, table, config):
        del table["schedule"]
        config.write_text(tomli_w.dumps(table))
        code, _, err = helix("train", config)
        assert code == 2
        assert "schedule: missing; helix-train:trainer reads it" in err

    def test_an_interrupt_ends_with_130_and_can_be_resumed(self, helix, config, monkeypatch):
        batch = toy_lm.Data.batch

        def interrupt(self, *, seed, step):
            if step == 4:
                raise KeyboardInterrupt
            return batch(self, seed=seed, step=step)

        monkeypatch.setattr(toy_lm.Data, "batch", interrupt)
        code, _, err = helix("train", config, "trainer.checkpoint_every=2")
        assert code == 130
        assert "Traceback" not in err
        monkeypatch.setattr(toy_lm.Data, "batch", batch)
        code, out, _ = helix("train", config, "trainer.resume=true", "--json")
        assert (code, json.loads(out)["step"]) == (0, 6)

    def test_a_loss_that_is_no_number_is_failed_work(self, helix, config, monkeypatch):
        forward = toy_lm.Model.forward
        monkeypatch.setattr(toy_lm.Model, "forward", lambda self, ids: forward(self, ids) * float("nan"))
        code, _, err = helix("train", config)
        assert code == 1
        assert "error: loss is nan" in err

    def test_on_a_terminal_the_cursor_comes_back_after_an_interrupt(self, helix, config, monkeypatch):
        def interrupt(self, *, seed, step):
            raise KeyboardInterrupt

        monkeypatch.setattr(toy_lm.Data, "batch", interrupt)
        monkeypatch.setenv("TERM", "xterm-256color")
        controller, terminal = pty.openpty()
        try:
            with os.fdopen(terminal, "w") as stream:
                monkeypatch.setattr(sys, "stderr", stream)
                assert helix("train", config)[0] == 130
            shown = read_all(controller)
        finally:
            os.close(controller)
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")


@pytest.mark.parametrize("command", [("eval",), ("generate", "--prompt", "a", "--n-bytes", "3")])
def test_other_versions_are_refused_until_they_are_accepted_by_name(helix, run, kernel, command):
    plugins = [attrs.evolve(plugin, version="99.0") for plugin in kernel.plugins]
    kernel.registry = Registry(plugins, kernel.failures)
    code, _, err = helix(command[0], run, *command[1:])
    assert code == 2
    assert "installed is 99.0" in err
    assert "--accept-versions" in err
    assert helix(command[0], run, *command[1:], "--accept-versions")[0] == 0


class TestEval:
    def test_it_measures_what_training_measured(self, helix, run):
        code, out, err = helix("eval", run, "--json")
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        assert code == 0
        assert json.loads(out) == {
            "checkpoint": str(run / "checkpoints/step-00000006"),
            "step": 6,
            "bits_per_byte": last["validation_bits_per_byte"],
            "bytes": 39,
        }
        assert err == ""

    def test_baselines_are_those_of_the_data(self, helix, run):
        _, out, _ = helix("eval", run, "--baselines", "--json")
        assert json.loads(out)["gzip"] == 1.5

    def test_data_without_baselines_are_an_error(self, helix, run, monkeypatch):
        monkeypatch.delattr(toy_lm.Data, "compressed_bits_per_byte")
        code, out, err = helix("eval", run, "--baselines")
        assert (code, out) == (2, b"")
        assert "Data holds no bytes to compress" in err

    def test_other_data_are_a_note(self, helix, run, monkeypatch):
        held_out = toy_lm.Data.held_out

        def changed(self):
            self.fingerprint = "another"
            return held_out(self)

        monkeypatch.setattr(toy_lm.Data, "held_out", changed)
        code, _, err = helix("eval", run)
        assert code == 0
        assert "note: the data differ" in err

    def test_nothing_held_out_is_an_error(self, helix, run, monkeypatch):
        monkeypatch.setattr(toy_lm.Data, "held_out", lambda self: self._held_out[:0])
        code, _, err = helix("eval", run)
        assert code == 2
        assert "its data hold nothing out; set data.validation_fraction above 0" in err

    def test_stream_reads_all_in_one_pass(self, helix, run, monkeypatch):
        lengths = []
        extend = toy_lm.Model.extend
        monkeypatch.setattr(
            toy_lm.Model, "extend", lambda self, ids, s: lengths.append(ids.shape[1]) or extend(self, ids, s)
        )
        _, out, _ = helix("eval", run, "--stream", "--chunk-len", 16, "--json")
        found, held_out = json.loads(out), toy_lm.Data().held_out()
        assert lengths == [16, 16, 7]
        assert found["bytes"] == 39
        expected = evaluate_stream(open_model(run).model, held_out, chunk_len=39)
        assert found["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)
        _, out, _ = helix("eval", run, "--stream", "--json")
        assert json.loads(out)["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--chunk-len", 16], "--chunk-len 16 is for --stream"),
            (["--stream", "--chunk-len", 0], "--chunk-len is 0, allowed is >= 1"),
        ],
    )
    def test_wrong_options_are_said(self, helix, run, options, message):
        code, out, err = helix("eval", run, *options)
        assert (code, out) == (2, b"")
        assert message in err


class TestGenerate:
    def expected(self, run, prompt, n_bytes, **options):
        return bytes(generate_bytes(open_model(run).model, prompt, n_bytes, **options))

    def test_it_prints_the_prompt_and_what_follows(self, helix, run):
        options = ("--n-bytes", 20, "--temperature", 0.5, "--top-k", 3, "--seed", 4)
        code, out, _ = helix("generate", run, "--prompt", "é", *options)
        follows = self.expected(run, "é".encode(), 20, temperature=0.5, top_k=3, seed=4)
        assert (code, out) == (0, "é".encode() + follows + b"\n")

    def test_its_json_is_text(self, helix, run):
        _, out, _ = helix("generate", run, "--prompt", "a", "--n-bytes", 9, "--temperature", 0, "--json")
        assert json.loads(out) == {
            "checkpoint": str(run / "checkpoints/step-00000006"),
            "prompt": "a",
            "text": self.expected(run, b"a", 9, temperature=0).decode("utf-8", "replace"),
        }

    def test_a_prompt_that_is_not_utf8_is_taken_as_it_was_typed(self, helix, run):
        _, out, _ = helix("generate", run, "--prompt", os.fsdecode(b"a\xff"), "--n-bytes", 2)
        assert out.startswith(b"a\xff")
        assert len(out) == 2 + 2 + 1

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--prompt", ""], "prompt is empty"),
            (["--prompt", "a", "--temperature", "-1"], "temperature is -1.0, allowed is >= 0"),
            (["--prompt", "a", "--n-bytes", "0"], "n_bytes is 0, allowed is >= 1"),
        ],
    )
    def test_wrong_input_prints_nothing_but_the_error(self, helix, run, options, message):
        code, out, err = helix("generate", run, *options)
        assert (code, out) == (2, b"")
        assert f"error: {message}" in err


class TestTokenizers:
    """Which tokenizer a prompt goes through: that of the option, of the config, of its data, or none."""

    def expected(self, run, prompt, first):
        model = open_model(run).model
        ids = generate_bytes(model, bytes(byte - first for byte in prompt), 12, temperature=0)
        return prompt + bytes((byte + first) % 256 for byte in ids) + b"\n"

    @pytest.fixture
    def trained(self, helix, table, config, tmp_path):
        def train(**sections):
            table.update(sections)
            config.write_text(tomli_w.dumps(table))
            assert helix("train", config)[0] == 0
            return tmp_path / "run"

        return train

    def generated(self, helix, run, *options):
        common = ("--prompt", "bcd", "--n-bytes", 12, "--temperature", 0)
        code, out, err = helix("generate", run, *common, *options)
        assert code == 0, err
        return out

    def test_without_one_it_is_bytes(self, helix, trained):
        run = trained()
        assert self.generated(helix, run) == self.expected(run, b"bcd", 0)

    def test_that_of_the_config(self, helix, trained):
        run = trained(tokenizer={"use": "letters", "first": 98})
        assert self.generated(helix, run) == self.expected(run, b"bcd", 98)

    def test_that_of_the_data(self, helix, trained):
        run = trained(data={"use": "toy-data", "tokenizer": {"use": "letters", "first": 96}})
        assert self.generated(helix, run) == self.expected(run, b"bcd", 96)

    def test_that_of_the_option_comes_first(self, helix, trained, tmp_path):
        run = trained(tokenizer={"use": "letters", "first": 98})
        (tmp_path / "tokenizer.json").write_bytes(b"`")
        options = ("--tokenizer", tmp_path / "tokenizer.json")
        assert self.generated(helix, run, *options) == self.expected(run, b"bcd", ord("`"))

    def test_the_data_need_not_be_there(self, helix, trained, monkeypatch):
        run = trained(data={"use": "toy-data", "tokenizer": {"use": "letters"}})
        monkeypatch.setattr(toy_lm.Data, "__init__", None)
        assert self.generated(helix, run).startswith(b"bcd")

    def test_an_evaluation_over_tokens_tells_both_losses(self, helix, run, monkeypatch):
        monkeypatch.setattr(toy_lm.Data, "tokens_per_byte", 0.25, raising=False)
        _, out, _ = helix("eval", run, "--json")
        found = json.loads(out)
        assert (found["bytes"], found["tokens"]) == (156, 39)
        assert found["bits_per_byte"] == pytest.approx(found["loss_per_token"] / math.log(2) / 4)


def test_an_evaluation_of_classes_tells_their_accuracy(helix, run, monkeypatch):
    batch = toy_lm.Data.batch

    def of_rows(self):
        made = batch(self, seed=0, step=0)
        made.targets = made.targets[:, -1]
        return [made]

    forward = toy_lm.Model.forward
    monkeypatch.setattr(toy_lm.Model, "forward", lambda self, ids: forward(self, ids)[:, -1])
    monkeypatch.setattr(toy_lm.Data, "evaluation_batches", of_rows, raising=False)
    monkeypatch.setattr(toy_lm.Data, "tokens_per_byte", None, raising=False)
    _, out, _ = helix("eval", run, "--json")
    found = json.loads(out)
    assert found.keys() == {"checkpoint", "step", "accuracy", "loss", "targets"}
    assert found["targets"] == 4
    assert 0 <= found["accuracy"] <= 1
