"""The task by Helix: a config for `helix train`, and a plugin installed beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from resume_task import ACCUMULATE, CLIP_NORM, EMA_DECAY, LEARNING_RATE, WARM_UP, Job
from serving import serve

import helix_data.loading.prefetch  # noqa: F401 - imported here, before runs are forked
import helix_train.plot
import helix_train.trainer  # noqa: F401 - as above
from helix_kernel import cli
from helix_kernel.checkpoint import Checkpoint
from helix_kernel.nesting import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG = f"""
[model]
use = "resume-model"

[data]
use = "resume-rows"
draws = {{draws}}
epoch_batches = {{epoch_batches}}
row_seconds = {{row_seconds}}

[loader]
workers = {{workers}}

[loss]
use = "cross-entropy"

[optimizer]
use = "adamw"
lr = {LEARNING_RATE}

[schedule]
use = "cosine"
warmup_steps = {WARM_UP}

[trainer]
steps = {{steps}}
out = "{{out}}/run"
resume = "auto"
accumulate = {ACCUMULATE}
clip_norm = {CLIP_NORM}
checkpoint_every = {{checkpoint_every}}
log_every = 1
measure_speed = false
samples = 0
callbacks = [{{{{ use = "ema", decay = {EMA_DECAY} }}}}]
"""


def main(job: Job) -> None:
    """Run `helix train`, and write down what the last checkpoint holds."""
    try:
        cli.main(["train", str(write_config(job))])
    except SystemExit as ended:
        if ended.code:
            raise
    write_end(job)


def write_config(job: Job) -> Path:
    """Write the config of a job into its folder."""
    values = {"draws": str(job.draws).lower()}
    for name in ("epoch_batches", "row_seconds", "workers", "steps", "out", "checkpoint_every"):
        values[name] = getattr(job, name)
    path = Path(job.out) / "config.toml"
    path.write_text(CONFIG.format(**values))
    return path


def install_plugin(folder: Path) -> None:
    """Describe the plugin as an installer would, in a folder on the search path."""
    info = folder / "resume_benchmark-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: resume-benchmark\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[helix_kernel.v1]\nresume-benchmark = resume_plugin\n")


def write_end(job: Job) -> None:
    """Write the end of a run in the form that the comparison reads."""
    run = Path(job.out) / "run"
    with Checkpoint.open(run / f"checkpoints/step-{job.steps:08d}") as opened:
        tree: dict[str | int, Any] = opened.state(as_torch=True)
    rate = _metrics(job)[-1]["lr"]
    end = {
        "weights": _tensors(tree["model"]),
        "EMA": _tensors(tree["averaged"]),
        "optimizer": _tensors(tree["optimizer"]["state"]),
        "learning rate": {"": torch.tensor(rate, dtype=torch.float64)},
    }
    torch.save(end, Path(job.out) / "end.pt")


def losses(job: Job) -> list[str]:
    """Return the losses of the run's steps, in hexadecimal digits."""
    return [float(line["loss"]).hex() for line in _metrics(job)]


def _metrics(job: Job) -> list[dict[str, Any]]:
    lines = (Path(job.out) / "run/metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def _tensors(tree: Any) -> Mapping[str, torch.Tensor]:
    return {name: torch.as_tensor(value) for name, value in flatten(tree).items()}


if __name__ == "__main__":
    serve(main)
