"""How DDP and FSDP2 scale on the cores of this machine; writes docs/benchmarks/ranks.md with --write.

Usage: python tests/benchmarks/ranks/run.py [--rounds N] [--write]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

WORKER = Path(__file__).with_name("worker.py")
TARGET = ROOT / "docs/benchmarks/ranks.md"
PACKAGES = ("helix-train", "helix-kernel", "helix-ssm", "helix-data", "torch")
WORLDS = (1, 2, 4)
WAYS = ("ddp", "fsdp2")
WARM_UP, STEPS = 5, 30

NOTE = """\
One thread a process, all on this machine, whose cores the head of this page counts: where there are more
processes than cores, they share them, and no way of training can be faster than that. Each process has its
own {batch} sequences of {seq_len} bytes a step (weak scaling): a byte-level language model of {layers} Mamba
blocks of width {width}, AdamW, gloo over loopback. Step time is the median of {steps} steps after {warm_up};
the table has medians over {rounds} rounds, in each of which every row is run once. "to 1 process" is the
speed in tokens beside that of one process without ranks. "alone" is the step time of as many processes at
the same time that do not know of one another, so that the rest of a step is communication: its share is
1 - alone / step. Memory is the most that a rank held beyond what it held before the model was built."""

CONFIG = """
[model]
use = "language-model"
vocab_size = 256
d_model = {width}
n_layers = {layers}
mixer = {{ use = "mamba" }}

[data]
use = "text-bytes"
paths = ["{text}"]
seq_len = {seq_len}
batch_size = {batch}
validation_fraction = 0.0

[loss]
use = "cross-entropy"

[optimizer]
use = "adamw"
lr = 1e-3

[schedule]
use = "cosine"
warmup_steps = 2

[trainer]
steps = {total}
log_every = 1
checkpoint_every = 100000
"""
SIZES = {"width": 256, "layers": 4, "seq_len": 128, "batch": 4}


@dataclass(frozen=True)
class Row:
    """What one way of training took: seconds a step, and bytes on the rank that held most."""

    seconds: float
    nbytes: float


def main() -> None:
    """Measure, print the page, and write it where that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = prepare(Path(folder))
        rounds = [measure(config, Path(folder) / str(number)) for number in range(given.rounds)]
    page = "\n".join([head(given.rounds), *table(rounds), ""])
    print(page)
    if given.write:
        TARGET.write_text(page, encoding="utf-8")


def prepare(folder: Path) -> Path:
    """Write a text and a config, and return the config."""
    text = folder / "text.bin"
    text.write_bytes(np.random.default_rng(0).integers(0, 256, 2**20, dtype=np.uint8).tobytes())
    config = folder / "config.toml"
    config.write_text(CONFIG.format(text=text, total=WARM_UP + STEPS, **SIZES))
    return config


def measure(config: Path, out: Path) -> dict[tuple[str, int], Row]:
    """Run every way of training once; as many processes apart from one another are the way "alone"."""
    found = {}
    for world in WORLDS:
        python = [sys.executable]
        apart = [_start(python, config, f"{out}-alone-{world}-{n}", "none") for n in range(world)]
        found["alone", world] = _row(apart)
        launcher = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={world}",
        ]
        for way in WAYS:
            found[way, world] = _row([_start(launcher, config, f"{out}-{way}-{world}", way)])
    return found


def table(rounds: list[dict[tuple[str, int], Row]]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| way | processes | step | tokens/s | to 1 process | alone | communication | memory of a rank |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for way in WAYS:
        for world in WORLDS:
            step = statistics.median(found[way, world].seconds for found in rounds)
            alone = statistics.median(found["alone", world].seconds for found in rounds)
            share = statistics.median(
                1 - found["alone", world].seconds / found[way, world].seconds for found in rounds
            )
            ratio = statistics.median(
                world * found["alone", 1].seconds / found[way, world].seconds for found in rounds
            )
            memory = statistics.median(found[way, world].nbytes for found in rounds) / 2**20
            speed = world * SIZES["batch"] * SIZES["seq_len"] / step
            times = f"{step * 1e3:.0f} ms | {speed:,.0f} | {ratio:.2f} | {alone * 1e3:.0f} ms"
            lines.append(f"| {way} | {world} | {times} | {share:.0%} | {memory:.0f} MiB |")
    return lines


def head(rounds: int) -> str:
    """Return what stands above the table."""
    command = "python tests/benchmarks/ranks/run.py --write"
    note = NOTE.format(steps=STEPS, warm_up=WARM_UP, rounds=rounds, **SIZES)
    return f"{heading('DDP and FSDP2 on several processes', command, PACKAGES)}\n{note}\n"


def _start(launcher: list[str], config: Path, out: str, parallel: str) -> subprocess.Popen[str]:
    overrides = [f"trainer.out={out}", f"trainer.parallel={parallel}"]
    return subprocess.Popen(
        [*launcher, str(WORKER), str(config), str(WARM_UP), *overrides],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def _row(processes: list[subprocess.Popen[str]]) -> Row:
    lines = []
    for process in processes:
        shown, _ = process.communicate()
        if process.returncode:
            raise SystemExit(f"a process failed with {process.returncode}: {shown}")
        lines += [json.loads(line) for line in shown.splitlines() if line.startswith("{")]
    return Row(
        statistics.median(line["seconds"] for line in lines if "seconds" in line),
        max(line["bytes"] for line in lines),
    )


if __name__ == "__main__":
    main()
