"""The walk of a newcomer: train from a config, kill, resume to the bit, evaluate, generate."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import attrs
import numpy as np
import pytest

from helix_kernel import default_kernel
from helix_kernel.cli import main

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs/examples/ssm-byte-lm.toml"
SMALL = [
    "model.d_model=16",
    "model.n_layers=1",
    "data.seq_len=64",
    "data.batch_size=2",
    "trainer.log_every=1",
    "trainer.checkpoint_every=50",
]


@attrs.frozen
class Done:
    returncode: int
    stdout: str
    stderr: str


def helix(*arguments: object, check: bool = True, **environment: str) -> Done:
    """Run a command in this process, which has loaded torch already."""
    out, err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), io.StringIO()
    default_kernel.cache_clear()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
    out.flush()
    default_kernel.cache_clear()
    done = Done(int(ended.value.code or 0), out.buffer.getvalue().decode("utf-8", "replace"), err.getvalue())
    assert not check or done.returncode == 0, done.stderr
    return done


def helix_process(*arguments: object) -> None:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "helix_kernel.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def arrays(run: Path) -> dict[str, str]:
    found = json.loads(helix("checkpoint", "inspect", run, "--json").stdout)["arrays"]
    return {array["name"]: array["sha256"] for array in found}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A corpus small enough that evaluating it takes no time."""
    path = tmp_path_factory.mktemp("data") / "text.txt"
    rng = np.random.default_rng(0)
    path.write_bytes(bytes(rng.choice(list(b"abcd "), size=4000).astype(np.uint8)))
    return f"data.paths=['{path}']"


@pytest.fixture(scope="module")
def small_example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example config without its source, so that tests can give it a text of their own."""
    path = tmp_path_factory.mktemp("config") / "config.toml"
    lines = [line for line in EXAMPLE.read_text().splitlines() if not line.startswith("source")]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, small_example: Path, text: str) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    helix_process("train", small_example, *SMALL, text, f"trainer.out={out}", "trainer.steps=200")
    return out


def test_resuming_after_a_kill_equals_never_having_stopped_to_the_bit(
    tmp_path: Path, finished: Path, small_example: Path, text: str
):
    out = tmp_path / "killed"
    command = ["train", small_example, *SMALL, text, f"trainer.out={out}", "trainer.steps=200"]
    kill_during_step(130, out, [sys.executable, "-m", "helix_kernel.cli", *map(str, command)])
    assert not (out / "checkpoints/step-00000200").exists()
    helix_process(*command, "trainer.resume=true")
    assert (out / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()
    whole = arrays(finished)
    assert arrays(out) == whole
    for part in ("model/", "optimizer/", "rng/torch", "data/rows"):
        assert any(name.startswith(part) for name in whole), f"no array under {part}"


def kill_during_step(step: int, out: Path, command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = out / "metrics.jsonl"
    while process.poll() is None:
        done = metrics.read_text().count("\n") if metrics.exists() else 0
        if done >= step - 1:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
            return
        time.sleep(0.002)
    pytest.fail(f"training ended before step {step}: exit code {process.returncode}")


def test_training_lowers_the_loss(finished: Path):
    records = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 200
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:5])


def test_the_frozen_config_of_a_run_is_a_config(finished: Path):
    assert json.loads(helix("config", "check", finished / "config.toml", "--json").stdout)["ok"]


def test_a_finished_run_evaluates_as_it_did_when_it_ended(finished: Path):
    last = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    measured = json.loads(helix("eval", finished, "--baselines", "--json").stdout)
    assert measured["bits_per_byte"] == pytest.approx(last["validation_bits_per_byte"], rel=1e-6)
    assert measured["bytes"] == 399
    assert measured["gzip"] > 1
    assert measured["xz"] > 1


def test_generation_is_a_function_of_the_seed(finished: Path):
    first, again, other = (
        helix("generate", finished, "--prompt", "abc", "--n-bytes", 40, "--seed", seed).stdout
        for seed in (1, 1, 2)
    )
    assert first.startswith("abc")
    assert len(first.encode()) == 3 + 40 + 1
    assert first == again != other


@pytest.mark.parametrize("mixer", ["s4d", "hyena"])
def test_changing_the_mixers_name_is_all_it_takes(mixer: str, tmp_path: Path, small_example: Path, text: str):
    config = tmp_path / "other.toml"
    config.write_text(small_example.read_text().replace('use = "mamba"', f'use = "{mixer}"'))
    out = tmp_path / "run"
    helix("train", config, *SMALL, text, f"trainer.out={out}", "trainer.steps=3")
    assert any(path.startswith("model/blocks/0/mixer/") for path in arrays(out))


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.precision=bf16"],
        ["trainer.accumulate=3"],
        ["trainer.activation_checkpointing=true"],
        ["trainer.chunk_len=24"],
        ["trainer.logits_chunk=50"],
        ["trainer.gradient=truncated", "trainer.chunk_len=24"],
        ["optimizer.use=lion", "optimizer.lr=5e-3", "schedule.use=linear"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_switch_of_the_trainer_trains(
    overrides: list[str], tmp_path: Path, small_example: Path, text: str
):
    done = helix(
        "train",
        small_example,
        *SMALL,
        text,
        f"trainer.out={tmp_path / 'run'}",
        "trainer.steps=30",
        *overrides,
    )
    records = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    assert losses[-1] < 0.8 * losses[0], done.stderr


class TestErrors:
    """One clear error and exit code 2 for each mistake that a user can make."""

    def failed(self, *arguments: object, **environment: str) -> str:
        finished = helix(*arguments, check=False, **environment)
        assert finished.returncode == 2, finished.stderr
        assert "Traceback" not in finished.stderr
        assert finished.stderr.count("error:") == 1
        return finished.stderr

    def test_an_unknown_component(self):
        assert "Did you mean 'mamba'?" in self.failed("train", EXAMPLE, "model.mixer.use=mambo")

    def test_a_component_whose_distribution_is_not_installed(self):
        message = self.failed("train", EXAMPLE, HELIX_PLUGINS="helix-train,helix-data")
        assert "pip install helix-ssm" in message

    def test_a_dataset_path_that_does_not_exist(self, small_example: Path, tmp_path: Path):
        message = self.failed(
            "train", small_example, "data.paths=['nowhere.txt']", f"trainer.out={tmp_path}/r"
        )
        assert "nowhere.txt" in message
        assert not (tmp_path / "r").exists()

    def test_an_empty_file(self, small_example: Path, tmp_path: Path):
        empty = tmp_path / "empty.txt"
        empty.touch()
        message = self.failed("train", small_example, f"data.paths=['{empty}']", f"trainer.out={tmp_path}/r")
        assert "empty" in message

    def test_a_checkpoint_of_another_architecture(
        self, finished: Path, small_example: Path, text: str, tmp_path: Path
    ):
        message = self.failed(
            "train",
            small_example,
            *SMALL,
            text,
            "model.d_model=24",
            f"trainer.resume='{finished}'",
            f"trainer.out={tmp_path}/r",
            "trainer.steps=300",
        )
        assert "(256, 16) in the checkpoint, (256, 24) in the model" in message
        assert not (tmp_path / "r/metrics.jsonl").exists()

    def test_a_checkpoint_whose_provider_is_not_installed(self, finished: Path):
        message = self.failed("generate", finished, "--prompt", "a", HELIX_PLUGINS="helix-train")
        assert "pip install helix-ssm==" in message

    def test_a_truncated_checkpoint(self, finished: Path, tmp_path: Path):
        copy = copied(finished, tmp_path)
        victim = next(copy.rglob("data-00000.bin"))
        victim.write_bytes(victim.read_bytes()[:-7])
        message = self.failed("generate", copy, "--prompt", "a")
        assert "data-00000.bin, part of array 'data/rows', has" in message

    def test_a_run_directory_that_holds_checkpoints_already(
        self, finished: Path, small_example: Path, text: str
    ):
        message = self.failed(
            "train", small_example, *SMALL, text, f"trainer.out={finished}", "trainer.steps=200"
        )
        assert "trainer.resume=true" in message

    def test_resuming_where_there_is_nothing(self, small_example: Path, text: str, tmp_path: Path):
        message = self.failed(
            "train", small_example, text, f"trainer.out={tmp_path}/none", "trainer.resume=true"
        )
        assert "there is no checkpoint" in message


def copied(run: Path, tmp_path: Path) -> Path:
    newest = max((run / "checkpoints").glob("step-*"))
    return Path(shutil.copytree(newest, tmp_path / newest.name))
