"""What tests of training share: a toy plugin beside helix-train, and runs of it."""

from __future__ import annotations

import io
import sys
from copy import deepcopy
from pathlib import Path

import pytest

TOY = Path(__file__).parent / "toy"
sys.path.insert(0, str(TOY))


@pytest.fixture
def kernel():
    """Only helix-train and the toy plugin; no backend is in force afterwards that was not before."""
    import toy_lm

    import helix_train
    from helix_kernel import Kernel
    from helix_kernel.plugins import Manifest
    from helix_train import plugin

    manifests = [
        Manifest(name="train", provider="helix-train", version=helix_train.__version__, module=plugin),
        Manifest(name="toy", provider="toy-lm", version="1.0", module=toy_lm),
    ]
    kernel = Kernel(found=[], manifests=manifests)
    with kernel.backends(["reference"]):
        yield kernel


@pytest.fixture
def table(tmp_path):
    """A config of the toy parts, to be changed and given to `trainer`."""
    return {
        "model": {"use": "toy"},
        "data": {"use": "toy-data"},
        "loss": {"use": "cross-entropy"},
        "optimizer": {"use": "adamw", "lr": 0.1},
        "schedule": {"use": "cosine", "warmup_steps": 2},
        "trainer": {
            "steps": 6,
            "log_every": 1,
            "measure_speed": False,
            "samples": 0,
            "out": str(tmp_path / "run"),
        },
    }


@pytest.fixture
def installed(kernel, monkeypatch):
    """Let commands and checkpoints find the toy plugin as if it were installed."""
    monkeypatch.setattr("helix_kernel.kernel.default_kernel", lambda: kernel)
    monkeypatch.setattr("helix_kernel.config.KernelSettings.kernel", lambda self: kernel)


@pytest.fixture
def trainer(kernel, installed, table, monkeypatch):
    """Build a trainer of the table with changes such as ``{"trainer.steps": 3}``."""
    from helix_kernel.config import resolve_document

    # Drawing takes longer than all the rest of such a run.
    monkeypatch.setattr("helix_train.reporting.draw_loss_curve", lambda records, path: path)
    monkeypatch.setattr("helix_train.reporting.write_report", lambda out: out)

    def build(changes=None):
        changed = deepcopy(table)
        for path, value in (changes or {}).items():
            section, key = path.split(".")
            changed[section][key] = value
        config = resolve_document(changed, kernel=kernel)
        return kernel.build("trainer", config["trainer"], config=config)

    return build


@pytest.fixture
def progress():
    """Progress as plain lines into a string, ``progress.stream``."""
    from helix_train.progress import Progress

    shown = Progress(io.StringIO(), every=0)
    shown.stream = shown._stream
    return shown
