"""What the trainer costs over a bare PyTorch loop; writes docs/benchmarks/trainer.md with --write.

Usage: python tests/benchmarks/trainer/run.py [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from helix_kernel import load_config
from helix_train.progress import Progress
from helix_train.state import parameter_groups

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

if TYPE_CHECKING:
    from helix_kernel import Config

TARGET = ROOT / "docs/benchmarks/trainer.md"
PACKAGES = ("helix-train", "helix-kernel", "helix-ssm", "helix-data", "torch")
LIMIT = 0.02
LOG_EVERY = 10
WARM_UP, BLOCKS = 2, 6
"""Blocks of `LOG_EVERY` steps that are run before those that count, and those that do."""

NOTE = """\
One process and one thread; the same language model (Mamba blocks), data, AdamW and clipping of the norm in
both loops; a line of metrics every ten steps, neither checkpoints nor validation. The bare loop is PyTorch
alone: batch, forward, loss, backward, clip, step, schedule. A round runs each loop in turn, in one process.
A run's time is the median over {blocks} blocks of ten steps, after {warm_up} that do not count; the table has
medians over {rounds} rounds, of the differences too."""

CONFIG = """
[model]
use = "language-model"
vocab_size = 256
d_model = {d_model}
n_layers = {n_layers}
mixer = {{ use = "mamba" }}

[data]
use = "text-bytes"
paths = ["{text}"]
seq_len = {seq_len}
batch_size = {batch_size}
validation_fraction = 0.0

[loss]
use = "cross-entropy"

[optimizer]
use = "adamw"
lr = 1e-3

[schedule]
use = "cosine"
warmup_steps = 10

[trainer]
steps = {steps}
out = "{out}"
log_every = {log_every}
checkpoint_every = 1000000
clip_norm = 1.0
"""


@dataclass(frozen=True)
class Size:
    """A model and a batch of it.

    Args:
        name: What the table calls it.
        d_model: Width.
        n_layers: Blocks.
        seq_len: Bytes of a row.
        batch_size: Rows.
        is_limited: Whether the limit is for a step of this size.
    """

    name: str
    d_model: int
    n_layers: int
    seq_len: int
    batch_size: int
    is_limited: bool


SIZES = (
    Size("about 20 ms", d_model=64, n_layers=2, seq_len=128, batch_size=2, is_limited=True),
    Size("a few ms", d_model=16, n_layers=1, seq_len=32, batch_size=1, is_limited=False),
)


def main() -> None:
    """Measure, print, and write the document where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="rounds, each of both loops in turn")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    head = heading("The training loop", "python tests/benchmarks/trainer/run.py --write", PACKAGES)
    print(head)
    document = "\n".join([head, *_table(arguments.rounds)])
    if arguments.write:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text(document + "\n")


def _table(rounds: int) -> list[str]:
    lines = [
        NOTE.format(blocks=BLOCKS, warm_up=WARM_UP, rounds=rounds),
        "",
        "| step | bare loop | `helix train` | over the bare loop | µs a step | limit | met |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    print("\n".join(lines))
    for size in SIZES:
        lines.append(_row(size, rounds))
        print(lines[-1], flush=True)
    return lines


def _row(size: Size, rounds: int) -> str:
    with tempfile.TemporaryDirectory() as directory:
        measure = {"bare": bare_loop, "ours": our_loop}
        config = make_config(size, Path(directory))
        taken = [{name: run(config) for name, run in measure.items()} for _ in range(rounds)]
    bare = statistics.median(round_["bare"] for round_ in taken)
    ours = statistics.median(round_["ours"] for round_ in taken)
    share = statistics.median(round_["ours"] / round_["bare"] - 1 for round_ in taken)
    extra = statistics.median(round_["ours"] - round_["bare"] for round_ in taken)
    met = "yes" if share <= LIMIT else f"no, {share - LIMIT:.1%} over"
    judged = (f"{LIMIT:.0%}", met) if size.is_limited else ("", "")
    cells = (
        size.name,
        f"{bare * 1e3:.2f} ms",
        f"{ours * 1e3:.2f} ms",
        f"{share:+.1%}",
        f"{extra * 1e6:.0f}",
        *judged,
    )
    return f"| {' | '.join(cells)} |"


def make_config(size: Size, directory: Path) -> Config:
    """Write a text and a config into a directory, and load the config as `helix train` does."""
    text, file = directory / "text", directory / "config.toml"
    text.write_bytes(np.random.default_rng(0).integers(97, 123, 1_000_000, dtype=np.uint8).tobytes())
    steps = (WARM_UP + BLOCKS) * LOG_EVERY
    values = {name: getattr(size, name) for name in ("d_model", "n_layers", "seq_len", "batch_size")}
    file.write_text(
        CONFIG.format(text=text, out=directory / "run", steps=steps, log_every=LOG_EVERY, **values)
    )
    return load_config(str(file))


def our_loop(config: Config) -> float:
    """Return the seconds that the trainer takes for a step."""
    shutil.rmtree(config["trainer"].arguments["out"], ignore_errors=True)
    trainer = config.kernel.build("trainer", config["trainer"], config=config)
    stamps = _stamps(trainer.optimizer)
    trainer.fit(Progress(io.StringIO()))
    return _seconds(stamps)


def bare_loop(config: Config) -> float:
    """Return the seconds that the same steps take without a trainer."""
    kernel, steps = config.kernel, config["trainer"].arguments["steps"]
    kernel.use_backends(config.settings.backends)
    torch.manual_seed(0)
    dataset = kernel.build("dataset", config["data"])
    model = kernel.build("layer", config["model"])
    optimizer = kernel.build("optimizer", config["optimizer"], params=parameter_groups(model))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, kernel.build("schedule", config["schedule"], total_steps=steps)
    )
    stamps = _stamps(optimizer)
    log = Path(config["trainer"].arguments["out"]).parent / "bare.jsonl"
    with log.open("w", buffering=1) as file:
        for step in range(steps):
            batch = dataset.batch(seed=0, step=step)
            logits = model(batch.inputs)
            loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            if (step + 1) % LOG_EVERY == 0:
                record = {"step": step + 1, "loss": loss.item(), "norm": norm.item()}
                file.write(json.dumps(record) + "\n")
    return _seconds(stamps)


def _stamps(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return a list to which each step of the optimizer adds the time of its end."""
    stamps: list[float] = []
    optimizer.register_step_post_hook(lambda *_: stamps.append(time.perf_counter()))
    return stamps


def _seconds(stamps: list[float]) -> float:
    """Return the seconds a step, as the median over the blocks that count."""
    ends = stamps[WARM_UP * LOG_EVERY - 1 :: LOG_EVERY]
    blocks = [end - start for start, end in pairwise(ends)]
    assert len(blocks) == BLOCKS, f"{len(blocks)} blocks were measured, expected {BLOCKS}"
    return statistics.median(blocks) / LOG_EVERY


if __name__ == "__main__":
    main()
