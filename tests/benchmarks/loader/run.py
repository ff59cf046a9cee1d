"""The loader's benchmark: bytes of text a second beside torch's DataLoader and Grain, on one core.

Usage: python tests/benchmarks/loader/run.py [--write] [--rounds N] [--small]

Everything runs on one core of the machine, workers too. Rounds of all loaders are interleaved; the numbers
are medians. Grain is measured where it is installed (pip install grain).
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading
from loader.peers import loaders

from helix_kernel.randomness import drawing_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TARGET = ROOT / "docs/benchmarks/loader.md"
DEMAND = 100e6
"""Bytes of text that the trainer consumes a second."""
SHAPES = ((256, 16), (1024, 64), (2048, 256))
OURS, PEER = "helix, in the training process", "DataLoader, in the training process"


@attrs.frozen
class Measured:
    """One round of one loader.

    Args:
        rate: Bytes of text a second, asked for as fast as they come.
        waiting: Share of the time that a trainer of `DEMAND` waits.
        start: Seconds until the second batch: in a worker, with its start.
    """

    rate: float
    waiting: float
    start: float


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/loader.md as well")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="few bytes, to see that it works")
    options = parser.parse_args()
    packages = ["torch", "numpy"] + (["grain"] if importlib.util.find_spec("grain") else [])
    head = heading("The loader: speed", "python tests/benchmarks/loader/run.py --write", packages)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    size = 2**22 if options.small else 2**28
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "corpus.bin"
        path.write_bytes(np.random.default_rng(0).bytes(size))
        lines = [
            line for shape in SHAPES for line in table(path, *shape, options.rounds, small=options.small)
        ]
    document = "\n".join([head, *introduction(), *lines, *cost_of_drawing()])
    print(document)
    if options.write:
        TARGET.write_text(document + "\n", encoding="utf-8")


def introduction() -> list[str]:
    """Return what the tables hold."""
    lines = [
        "Windows of bytes as two int64 tensors, inputs and targets, from one file in the page cache; rates",
        "count the bytes of text, of which the tensors hold 16 each. Every process runs on the same core.",
        f"*Waits* is the share of its time that a trainer waits which consumes {DEMAND / 1e6:.0f} MB/s and",
        "sleeps between batches, as one does whose model runs on an accelerator. *Start* is the time to the",
        "second batch; the first start of a worker of helix in a process also starts the server that forks",
        "them. DataLoader and Grain draw windows one by one from an equivalent dataset and collate them.",
        "",
    ]
    if not importlib.util.find_spec("grain"):
        lines += ["Grain was not installed, and is not measured.", ""]
    return lines


def table(path: Path, seq_len: int, batch_size: int, rounds: int, *, small: bool) -> list[str]:
    """Measure all loaders on batches of a shape, and return a table."""
    n_bytes = seq_len * batch_size
    n_batches = max(10, int((2e5 if small else 2e7) / n_bytes))
    found: dict[str, list[Measured]] = defaultdict(list)
    begin = loaders(path, seq_len=seq_len, batch_size=batch_size)
    for _ in range(rounds):
        for name, loader in begin.items():
            found[name].append(measure(loader, n_batches, n_bytes))
    peer = median(found[PEER], "rate")
    lines = [
        f"## {batch_size} windows of {seq_len} bytes",
        "",
        "| loader | MB/s | times DataLoader | waits | start, ms |",
        "|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        rate = median(measured, "rate")
        lines.append(
            f"| {name} | {rate / 1e6:.1f} | {rate / peer:.2f} | {median(measured, 'waiting'):.1%} | "
            f"{median(measured, 'start') * 1e3:.1f} |"
        )
    return [*lines, ""]


def measure(begin: Callable[[], Iterator[Any]], n_batches: int, n_bytes: int) -> Measured:
    """Measure one loader once."""
    begun = time.perf_counter()
    batches = begin()
    for _ in range(2):
        next(batches)
    start = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(n_batches):
        next(batches)
    rate = n_batches * n_bytes / (time.perf_counter() - begun)
    waiting = share_of_waiting(batches, n_batches, n_bytes / DEMAND)
    # Both of torch's and Grain's iterators end their workers when nobody holds them.
    if hasattr(batches, "close"):
        batches.close()
    del batches
    return Measured(rate, waiting, start)


def share_of_waiting(batches: Iterator[Any], n_batches: int, step: float) -> float:
    """Return the share of the time that a trainer of so many seconds a step waits for batches."""
    waited, begun = 0.0, time.perf_counter()
    for _ in range(n_batches):
        asked = time.perf_counter()
        next(batches)
        got = time.perf_counter()
        waited += got - asked
        time.sleep(max(0.0, step))
    return waited / (time.perf_counter() - begun)


def cost_of_drawing() -> list[str]:
    """Return what seeding the global generators and putting them back costs."""

    def once() -> float:
        begun = time.perf_counter()
        for _ in range(200):
            with drawing_for(1, 2):
                pass
        return (time.perf_counter() - begun) / 200

    each = statistics.median(once() for _ in range(5))
    return [
        "## Datasets that draw",
        "",
        f"To seed the generators of torch, NumPy and Python for a batch and put back: {each * 1e6:.0f} µs.",
        "Datasets that say `draws = False`, as the text datasets of helix-data do, are spared that.",
    ]


def median(measured: list[Measured], name: str) -> float:
    """Return the median of one of the numbers of rounds."""
    return statistics.median(getattr(one, name) for one in measured)


if __name__ == "__main__":
    main()
