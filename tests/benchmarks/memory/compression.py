"""Bits per byte of motifs alone, each byte predicted before it is remembered, beside those of compressors.

Usage: python tests/benchmarks/memory/compression.py [--corpora …] [--seeds N] [--forms …] [--out FILE]

What the file has already is not measured again.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from corpora import corpus
from prequential import compressed

sys.path.append(str(Path(__file__).parents[1] / "sequence"))
from results import Result, once

from helix_kernel import default_kernel

BUDGET = 256 << 20
FORMS: dict[str, dict[str, Any]] = {
    "cascade": {},
    "longest": {"blend": "longest"},
    "cascade, 16 MB": {"budget": 16 << 20},
    "cascade, 16 MB, lru": {"budget": 16 << 20, "replace": "lru"},
    "cascade, 16 MB, lfu": {"budget": 16 << 20, "replace": "lfu"},
}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", nargs="+", default=["python-stdlib", "prose"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=8)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".jsonl"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for name in options.corpora:
        for seed in range(options.seeds):
            data = corpus(name, seed=seed, n_bytes=int(options.megabytes * 1e6))
            key = {"corpus": name, "seed": seed, "bytes": len(data)}
            once(options.out, {**key, "form": "compressors"}, partial(compressed, data))
            for form in options.forms:
                once(options.out, {**key, "form": form}, partial(measure, data, FORMS[form]))


def measure(data: bytes, table: dict[str, Any]) -> Result:
    """Return the bits per byte of motifs built by a table, and megabytes for each second of this process."""
    motifs = default_kernel().build("memory_tier", {"use": "motifs", "budget": BUDGET, **table})
    ids = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
    start = time.process_time()
    bits = motifs.score(ids)
    seconds = time.process_time() - start
    return {"bits": float(bits.double().mean()), "megabytes a second": len(data) / 1e6 / seconds}


if __name__ == "__main__":
    main()
