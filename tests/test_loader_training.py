"""A run over data that draw random numbers is the same to the bit, whoever makes its batches."""

from __future__ import annotations

import io
import json

import drawing_data
import pytest

import helix_data.plugin
import helix_ssm.plugin
import helix_train.plugin
from helix_kernel import Kernel
from helix_kernel.checkpoint import Checkpoint
from helix_kernel.config import resolve_document
from helix_kernel.plugins import Manifest
from helix_train.progress import Progress


@pytest.fixture
def kernel():
    """The first-party plugins that training needs, and somebody's own."""
    modules = (helix_data.plugin, helix_ssm.plugin, helix_train.plugin, drawing_data)
    manifests = [
        Manifest(
            name=module.__name__, provider=module.__name__.partition(".")[0], version="0.1", module=module
        )
        for module in modules
    ]
    kernel = Kernel(found=[], manifests=manifests)
    with kernel.backends(["reference"]):
        yield kernel


@pytest.fixture
def train(kernel, tmp_path, monkeypatch):
    """Train in a folder up to a step, with a loader; resumes what is there. Returns that step's digests."""
    monkeypatch.setattr("helix_kernel.kernel.default_kernel", lambda: kernel)
    monkeypatch.setattr("helix_kernel.config.KernelSettings.kernel", lambda self: kernel)
    monkeypatch.setattr("helix_train.reporting.draw_loss_curve", lambda records, path: path)
    monkeypatch.setattr("helix_train.reporting.write_report", lambda out: out)

    def run(name, steps, **loader):
        table = {
            "model": {
                "use": "language-model",
                "vocab_size": 48,
                "d_model": 8,
                "n_layers": 1,
                "mixer": "min-gru",
            },
            "data": {"use": "drawing"},
            "loss": {"use": "cross-entropy"},
            "optimizer": {"use": "adamw", "lr": 0.01},
            "schedule": {"use": "constant"},
            "loader": loader,
            "trainer": {
                "steps": steps,
                "accumulate": 2,
                "log_every": 1,
                "samples": 0,
                "measure_speed": False,
                "resume": "auto",
                "out": str(tmp_path / name),
            },
        }
        config = resolve_document(table, kernel=kernel)
        kernel.build("trainer", config["trainer"], config=config).fit(Progress(io.StringIO()))
        with Checkpoint.open(tmp_path / name / f"checkpoints/step-{steps:08d}") as opened:
            return {array: opened.digest(array) for array in opened.arrays}

    return run


def losses(folder):
    return [json.loads(line).get("loss") for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_the_number_of_workers_changes_no_bit_of_a_run(train):
    expected = train("inline", 4, workers=0)
    assert expected
    for workers in (1, 2):
        assert train(f"with {workers}", 4, workers=workers, prefetch=3) == expected


def test_a_run_resumed_with_other_workers_ends_as_one_that_never_stopped(train):
    expected = train("whole", 6)
    for steps, workers in ((1, 2), (3, 0), (4, 1), (6, 2)):
        found = train("in parts", steps, workers=workers)
    assert found == expected


def test_every_step_draws_other_numbers(train, tmp_path):
    train("whole", 4)
    found = [loss for loss in losses(tmp_path / "whole") if loss is not None]
    assert len(set(found)) == 4
