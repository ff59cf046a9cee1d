"""Runs of the trainer on each of several ranks, and what came of them."""

from __future__ import annotations

import io
import json
import time
from copy import deepcopy
from pathlib import Path

import parallel_toy
import toy_lm
from torch import distributed
from torch.distributed.tensor import DTensor

import helix_kernel.config
import helix_kernel.kernel
import helix_train
import helix_train.reporting
from helix_kernel import Kernel
from helix_kernel.config import resolve_document
from helix_kernel.plugins import Manifest
from helix_train import plugin
from helix_train.progress import Progress

TABLE = {
    "model": {"use": "blocks"},
    "data": {"use": "toy-data", "batch_size": 2},
    "loss": {"use": "cross-entropy"},
    "optimizer": {"use": "adamw", "lr": 0.05, "weight_decay": 0.1},
    "schedule": {"use": "cosine", "warmup_steps": 2},
    "trainer": {"steps": 6, "log_every": 1, "checkpoint_every": 3, "keep": 9},
}


def train_all(jobs):
    """Run one job after the other; each is changes of the table such as ``{"trainer.steps": 3}``."""
    kernel = _kernel()
    return {name: train(kernel, changes) for name, changes in jobs.items()}


def train(kernel, changes):
    """Train, and return what this rank saw: losses and norms, whole weights, text, and the error if any."""
    shown, trainer, failed = io.StringIO(), None, None
    try:
        trainer = build(kernel, changes)
        trainer.fit(Progress(shown, every=0))
    except Exception as error:  # noqa: BLE001 - the test is to see any
        failed = f"{type(error).__name__}: {error}"
    out, alone = Path(changes["trainer.out"]), (failed or "").startswith("LostRankError")
    metrics = (out / "metrics.jsonl").read_text().splitlines() if (out / "metrics.jsonl").exists() else []
    return {
        "records": [json.loads(line) for line in metrics],
        "weights": {} if trainer is None or alone else whole(trainer.model.state_dict()),
        "step": None if trainer is None else trainer.step,
        "shown": shown.getvalue(),
        "error": failed,
        "seen": [list(getattr(callback, "norms", [])) for callback in trainer.callbacks] if trainer else [],
    }


def build(kernel, changes):
    changed = deepcopy(TABLE)
    for path, value in changes.items():
        section, key = path.split(".", 1)
        changed[section][key] = value
    config = resolve_document(changed, kernel=kernel)
    return kernel.build("trainer", config["trainer"], config=config)


def whole(tensors):
    return {
        name: (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()
        for name, tensor in tensors.items()
    }


def failed(jobs):
    """Run jobs that end in an error, and leave the group at once as a process that ends does."""
    begun = time.monotonic()
    outcome = train_all(jobs)
    distributed.destroy_process_group()
    return outcome, time.monotonic() - begun


def _kernel():
    manifests = [
        Manifest(name="train", provider="helix-train", version=helix_train.__version__, module=plugin),
        Manifest(name="toy", provider="toy-lm", version="1.0", module=toy_lm),
        Manifest(name="parallel", provider="parallel-toy", version="1.0", module=parallel_toy),
    ]
    kernel = Kernel(found=[], manifests=manifests)
    kernel.use_backends(["reference"])
    # As if the plugins were installed: this process is all theirs.
    helix_kernel.kernel.default_kernel = lambda: kernel
    helix_kernel.config.KernelSettings.kernel = lambda self: kernel
    helix_train.reporting.draw_loss_curve = lambda records, path: path
    return kernel
