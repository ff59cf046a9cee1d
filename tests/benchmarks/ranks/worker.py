"""One process of a benchmark of ranks: trains, and prints what its steps took as one line of JSON."""

from __future__ import annotations

import io
import json
import os
import resource
import statistics
import sys

import torch

from helix_kernel import load_config
from helix_train.progress import Progress


def main() -> None:
    """Train the config that the arguments name, with overrides, and print step time and memory."""
    torch.set_num_threads(1)
    file, warm_up, *overrides = sys.argv[1:]
    config = load_config(file, overrides)
    before = _peak_bytes()
    trainer = config.kernel.build("trainer", config["trainer"], config=config)
    trainer.fit(Progress(io.StringIO(), every=0))
    found = {"rank": trainer.ranks.rank, "bytes": _peak_bytes() - before}
    if trainer.ranks.is_first:
        lines = (trainer.out / "timing.jsonl").read_text().splitlines()
        steps = [json.loads(line)["seconds"] for line in lines[int(warm_up) :]]
        found["seconds"] = statistics.median(steps)
    # One write, so that the lines of two processes do not mix.
    os.write(1, f"\n{json.dumps(found)}\n".encode())


def _peak_bytes() -> int:
    """Return the most memory that this process has held (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
