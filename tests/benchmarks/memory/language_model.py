"""A small byte model with a memory and without, given the same time to train, on text that neither has read.

Time is processor time on one thread, so that what else runs on the machine favours neither.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from corpora import corpus
from torch.nn import functional as F

from helix_kernel import default_kernel

MODEL = {"use": "language-model", "d_model": 128, "n_layers": 2, "mixer": {"use": "mamba"}}
WAYS = {
    "without": MODEL,
    "with memory": MODEL | {"memory": {"use": "hierarchy"}},
    "mixed linearly": MODEL | {"memory": {"use": "hierarchy", "mixture": "linear"}},
}
BATCH, LENGTH, CHUNK = 16, 256, 4096
HELD_OUT = 1 << 16


def trained(table: dict, data: torch.Tensor, *, seconds: float, seed: int) -> tuple[torch.nn.Module, int]:
    """Return a model that was trained for so many seconds of processor time, and the steps that it took."""
    torch.manual_seed(seed)
    kernel = default_kernel()
    kernel.use_backends(["auto"])
    model = kernel.build("layer", table).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    rows = data[: len(data) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
    order = torch.randperm(len(rows))
    start, step = time.process_time(), 0
    while (passed := (time.process_time() - start) / seconds) < 1:
        taken = order[torch.arange(step * BATCH, (step + 1) * BATCH) % len(order)]
        batch = rows[taken]
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1, (step + 1) / 20) * 0.5 * (1 + math.cos(math.pi * passed))
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
    return model.eval(), step


@torch.no_grad()
def bits_per_byte(model: torch.nn.Module, data: torch.Tensor) -> float:
    """Return what a model takes for text that it reads from its beginning to its end."""
    state, total = model.init_state(1), 0.0
    for first in range(0, len(data) - 1, CHUNK):
        part = data[first : first + CHUNK + 1]
        logits, state = model.extend(part[None, :-1], state)
        total += float(F.cross_entropy(logits[0], part[1:], reduction="sum"))
    return total / math.log(2) / (len(data) - 1)


def main() -> None:
    """Measure each way, and add a line of JSON for each corpus and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", nargs="+", default=["python-stdlib", "prose"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--megabytes", type=float, default=6)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.corpora:
        for seed in range(options.seeds):
            text = corpus(name, seed=seed, n_bytes=int(options.megabytes * 1e6))
            data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
            line = {"corpus": name, "seed": seed, "seconds": options.seconds}
            for way, table in WAYS.items():
                model, steps = trained(table, data[:-HELD_OUT], seconds=options.seconds, seed=seed)
                line[way] = {"bits": bits_per_byte(model, data[-HELD_OUT:]), "steps": steps}
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
