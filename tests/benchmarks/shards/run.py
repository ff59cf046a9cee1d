"""Speed of shards on one core: what ingestion reads, and what windows cost by their length and packing.

Usage: python tests/benchmarks/shards/run.py [--megabytes N] [--rounds N]

Numbers are medians over rounds, in MB of documents a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helix_data.byte_shards import ByteShards
from helix_data.ingestion.progress import IngestProgress
from helix_data.ingestion.run import ingest
from helix_data.shards.index import IngestOptions, load_index
from helix_data.shards.stream import ShardStream

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH_SIZE = 64
N_BATCHES = 200


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size = write_corpus(folder / "corpus.jsonl", arguments.megabytes * 1_000_000)
        print(f"| ingest JSON lines, dedup | {measure_ingestion(folder, size):,.0f} |")
        for seq_len in (256, 1024, 4096):
            measure_windows(folder / "shards", seq_len, arguments.rounds)


def write_corpus(path: Path, size: int) -> int:
    """Write documents of 100 to 4,000 letters, so many bytes together."""
    draw = random.Random(0)
    text = "".join(draw.choices("etaoin shrdlu", k=1_000_000))
    total = 0
    with path.open("w") as file:
        while total < size:
            start, length = draw.randrange(990_000), draw.randrange(100, 4000)
            file.write(json.dumps({"text": text[start : start + length]}) + "\n")
            total += length
    return total


def measure_ingestion(folder: Path, size: int) -> float:
    """Return megabytes a second."""
    begun = time.perf_counter()
    options = IngestOptions(dedup=True, validation_fraction=0.01)
    ingest(
        folder / "shards", [str(folder / "corpus.jsonl")], options=options, watcher=IngestProgress(every=60)
    )
    return size / (time.perf_counter() - begun) / 1e6


def measure_windows(folder: Path, seq_len: int, rounds: int) -> None:
    """Print what copying windows makes, and whole batches of tensors, by packing."""
    stream = ShardStream(folder, load_index(folder).train)
    starts = np.random.default_rng(0).integers(0, len(stream) - seq_len - 1, (N_BATCHES, BATCH_SIZE))
    size = N_BATCHES * BATCH_SIZE * seq_len

    def gather(step: int) -> None:
        stream.gather(starts[step], seq_len + 1)

    print(f"| gather, seq_len {seq_len} | {speed(gather, size, rounds):,.0f} |")
    for packing in ("stream", "packed", "documents"):
        dataset = ByteShards(path=str(folder), seq_len=seq_len, batch_size=BATCH_SIZE, packing=packing)

        def batch(step: int, dataset: ByteShards = dataset) -> None:
            dataset.batch(seed=0, step=step)

        print(f"| batch, seq_len {seq_len}, {packing} | {speed(batch, size, rounds):,.0f} |")


def speed(work: Callable[[int], None], size: int, rounds: int) -> float:
    """Return megabytes a second of doing something for each batch; the first round is not counted."""
    seconds = []
    for _ in range(rounds + 1):
        begun = time.perf_counter()
        for step in range(N_BATCHES):
            work(step)
        seconds.append(time.perf_counter() - begun)
    return size / statistics.median(seconds[1:]) / 1e6


if __name__ == "__main__":
    sys.exit(main())
