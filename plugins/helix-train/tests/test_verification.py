"""`helix train --verify-resume` and `--dry-run`: what they find, and that they can find it."""

from __future__ import annotations

import io
import json
import signal
import subprocess
from pathlib import Path

import pytest

from helix_kernel.errors import ArgumentError, HelixError
from helix_train import verification
from helix_train.dry_run import dry_run
from helix_train.progress import Progress
from helix_train.verification import train_and_die, verify_resume

DRAWING = {"model.use": "noisy", "model.dropout": 0.3, "data.draws": True, "trainer.accumulate": 2}


@pytest.fixture
def here(trainer, monkeypatch):
    """Let the runs of a verification be runs of this process, a death by SIGKILL an exception."""
    changed = {}

    class Killed(BaseException):
        pass

    def kill(_pid, number):
        assert number == signal.SIGKILL
        raise Killed

    def build(overrides):
        values = dict(override.split("=", 1) for override in overrides)
        table = {name: json.loads(value) for name, value in values.items() if name != "trainer.out"}
        return trainer({**DRAWING, **table, "trainer.out": values["trainer.out"], **changed})

    class Config:
        def __init__(self, overrides):
            self.kernel, self.overrides = self, overrides

        def __getitem__(self, section):
            return self.overrides

        def build(self, _kind, overrides, *, config):
            return build(overrides)

    def run(command, **_):
        overrides = [part for part in command if "=" in part and part.startswith("trainer.")]
        try:
            if "-c" in command:
                train_and_die("config.toml", overrides, int(command[2].rpartition(", ")[2].rstrip(")")))
            else:
                build(overrides).fit(Progress(io.StringIO()))
        except Killed:
            return subprocess.CompletedProcess(command, -signal.SIGKILL, "", "")
        except HelixError as error:
            return subprocess.CompletedProcess(command, error.exit_code, "", f"error: {error}\n")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(verification.os, "kill", kill)
    monkeypatch.setattr(verification, "load_config", lambda file, overrides: Config(overrides))
    monkeypatch.setattr(verification.subprocess, "run", run)
    return changed


def test_a_run_that_is_exact_is_found_to_be(here):
    found = verify_resume("config.toml", [])
    assert found.differences == ()
    assert (found.steps, found.checkpoint_at, found.killed_in) == (8, 4, 6)
    assert found.arrays > 5


def test_a_dataset_with_a_memory_of_its_own_is_found_out(here, monkeypatch):
    import toy_lm

    batch, calls = toy_lm.Data.batch, []

    def remembering(self, *, seed, step):
        calls.append(step)
        made = batch(self, seed=seed, step=step)
        made.inputs = (made.inputs + len(calls)) % 256
        return made

    monkeypatch.setattr(toy_lm.Data, "batch", remembering)
    differences = verify_resume("config.toml", []).differences
    assert any(line.startswith("array model/embedding/weight differs") for line in differences)
    assert any(line.startswith("metrics differ: ") for line in differences)


def test_a_run_that_fails_is_told_with_its_last_words(here):
    here["optimizer.lr"] = 1e30
    here["trainer.clip_norm"] = 0.0
    with pytest.raises(HelixError, match=r"(?s)ended with exit code 1:.*error: .*lower|Lower"):
        verify_resume("config.toml", [])


def test_too_few_steps_are_refused():
    with pytest.raises(ArgumentError, match="steps is 3, allowed is >= 4"):
        verify_resume("config.toml", [], steps=3)


class TestDryRun:
    def test_it_foresees_what_the_run_then_takes_and_writes_nothing(self, trainer, tmp_path):
        trained = trainer({**DRAWING, "trainer.checkpoint_every": 2})
        forecast = dry_run(trained, steps=2)
        assert list(tmp_path.iterdir()) == []
        assert forecast.parameters == forecast.trainable == 256 * 8 + 8 * 256 + 256
        assert forecast.tokens_per_step == 2 * 4 * 6
        assert forecast.flops_per_step == 6 * 8 * 256 * 48  # the head's: there is no other product
        assert forecast.seconds_per_step > 0
        assert forecast.peak_memory > 1 << 20
        trainer(DRAWING).fit(Progress(io.StringIO()))
        saved = tmp_path / "run/checkpoints/step-00000006/data-00000.bin"
        assert forecast.checkpoint_size <= saved.stat().st_size < 1.5 * forecast.checkpoint_size
        assert forecast.checkpoints == 4 * forecast.checkpoint_size
        assert forecast.told()["parameters"] == "4,352 (4,352 trained)"
        assert forecast.told()["a step"].startswith("48 tokens, 590 kFLOP, ")

    def test_a_disk_that_will_be_full_is_foreseen(self, trainer, monkeypatch):
        monkeypatch.setattr("helix_train.dry_run.disk_free", lambda path: 1000)
        (warning,) = dry_run(trainer(), steps=2).warnings()
        assert "checkpoints take" in warning
        assert "1,000 are free" in warning


def test_the_commands_options_exclude_each_other():
    from helix_kernel.errors import InputError
    from helix_train.commands import train

    with pytest.raises(InputError, match="--dry-run and --verify-resume are both given"):
        train(str(Path("config.toml")), dry_run=True, verify_resume=True)
