"""Bits per byte of a small model that learns as it reads, with each tier of memory added to it.

Sixteen streams are read side by side; each byte is predicted before anything is learned of it. The model
learns by its own loss alone, so that every memory beside it is given the same predictions. What the file has
already of a corpus and seed is not measured again.
"""

from __future__ import annotations

import argparse
import bz2
import json
import lzma
import math
import time
from pathlib import Path

import pyppmd
import torch
import zstandard
from corpora import corpus
from torch.nn import functional as F

from helix_kernel import default_kernel

N_STREAMS, CHUNK = 16, 256
MODEL = {"use": "language-model", "d_model": 128, "n_layers": 2, "mixer": {"use": "mamba"}}
MOTIFS = {"use": "motifs", "budget": 256 << 20}
MEMORIES = {
    "+ M0, longest motif": {"motifs": MOTIFS | {"blend": "longest"}},
    "+ M0, linear": {"motifs": MOTIFS, "mixture": "linear"},
    "+ M0": {"motifs": MOTIFS},
    "+ M0 + M1": {"motifs": MOTIFS, "cycles": {"use": "cycles", "budget": 32 << 20}},
    "+ M0 + M1 + M2": {
        "motifs": MOTIFS,
        "cycles": {"use": "cycles", "budget": 32 << 20},
        "cores": {"use": "stable-cores"},
    },
    "+ M0 + vectors": {"motifs": MOTIFS, "vectors": {"use": "vectors", "capacity": 16_384}, "surprise": 4.0},
}


def compressed(data: bytes) -> dict[str, float]:
    """Return the bits per byte of compressors at their strongest settings."""
    ppmd = pyppmd.Ppmd7Encoder(16, 256 << 20)
    sizes = {
        "bzip2 -9": len(bz2.compress(data, 9)),
        "zstd -22": len(zstandard.ZstdCompressor(level=22).compress(data)),
        "xz -9e": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "PPMd, order 16, 256 MB": len(ppmd.encode(data) + ppmd.flush()),
    }
    return {name: 8 * size / len(data) for name, size in sizes.items()}


def measure(data: bytes, *, seed: int, memories: dict[str, dict], say_every: int = 200) -> dict[str, float]:
    """Return the bits per byte of the model alone, and with each of the memories."""
    torch.manual_seed(seed)
    kernel = default_kernel()
    kernel.use_backends(["auto"])
    model = kernel.build("layer", MODEL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.01)
    built = {
        name: kernel.build("memory_tier", {"use": "hierarchy", "d_model": 128, "reading": "stream", **table})
        for name, table in memories.items()
    }
    streams = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    streams = streams[: len(streams) // N_STREAMS * N_STREAMS].reshape(N_STREAMS, -1)
    state = model.init_state(N_STREAMS)
    states = {name: memory.train().init_state(N_STREAMS) for name, memory in built.items()}
    n_steps = (streams.shape[1] - 1) // CHUNK
    total = dict.fromkeys(("model", *built), 0.0)
    seconds = dict.fromkeys(total, 0.0)
    for step in range(n_steps):
        part = streams[:, step * CHUNK : (step + 1) * CHUNK + 1]
        ids, targets = part[:, :-1], part[:, 1:]
        for group in optimizer.param_groups:
            group["lr"] = (
                4e-3 * min(1, (step + 1) / 20) * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * step / n_steps)))
            )
        start = time.perf_counter()
        x, state = model.blocks.extend(model.embedding(ids), state)
        state = torch.utils._pytree.tree_map(lambda leaf: leaf.detach(), state)
        logits = model.logits(x)
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        total["model"] += float(loss.detach()) / math.log(2)
        seconds["model"] += time.perf_counter() - start
        for name, memory in built.items():
            start = time.perf_counter()
            with torch.no_grad():
                mixed, states[name] = memory.mix(logits.detach(), ids, x.detach(), states[name])
            total[name] += float(F.nll_loss(mixed.flatten(0, 1), targets.flatten())) / math.log(2)
            seconds[name] += time.perf_counter() - start
        if (step + 1) % say_every == 0 or step + 1 == n_steps:
            told = {
                name: f"{bits / (step + 1):.4f} ({seconds[name] / (step + 1):.3f} s)"
                for name, bits in total.items()
            }
            print(f"seed {seed} step {step + 1}/{n_steps}", told, flush=True)
    return {name: bits / n_steps for name, bits in total.items()}


def main() -> None:
    """Measure, and add a line of JSON for each corpus and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", nargs="+", default=["python-stdlib", "prose"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=1)
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=list(MEMORIES))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.corpora:
        for seed in range(options.seeds):
            if _is_known(options.out, name, seed):
                continue
            data = corpus(name, seed=seed, n_bytes=int(options.megabytes * 1e6))
            bits = compressed(data) | measure(
                data, seed=seed, memories={each: MEMORIES[each] for each in options.memories}
            )
            line = {"corpus": name, "seed": seed, "bytes": len(data), "bits": bits}
            print(line, flush=True)
            with options.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _is_known(path: Path, name: str, seed: int) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return any((line["corpus"], line["seed"]) == (name, seed) for line in map(json.loads, lines))


if __name__ == "__main__":
    main()
