"""FLOPs and bytes moved for each KB of text, beside a transformer of equal parameters; see `counting`.

Usage: python tests/benchmarks/sequence/costs.py [--write]
"""

from __future__ import annotations

import argparse
import sys
from bisect import bisect_left
from pathlib import Path
from typing import Any

import attrs
from counting import Cost, Imagined

from helix_kernel import default_kernel

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

COMMAND = "python tests/benchmarks/sequence/costs.py --write"
TARGET = ROOT / "docs/benchmarks/sequence-costs.md"
CONTEXTS = tuple(2**power for power in range(10, 19))
SHOWN = (4096, 65536, 262144)
FEWER_FLOPS, FEWER_BYTES = 10, 5
TOLERANCE = 0.03
WIDTH_STEP = 8


@attrs.frozen
class Size:
    """A scale at which models are compared.

    Args:
        name: For the table.
        d_model: Width of the transformer.
        n_layers: Blocks of the transformer, each of attention and an mlp.
        n_heads: Its heads.
    """

    name: str
    d_model: int
    n_layers: int
    n_heads: int


SIZES = (Size("small", 256, 4, 4), Size("medium", 768, 12, 12))
CANDIDATES: dict[str, dict[str, Any]] = {
    "mamba": {"mixer": {"use": "mamba"}},
    "mamba2": {"mixer": {"use": "mamba2"}},
    "gated-deltanet": {"mixer": {"use": "gated-deltanet"}},
    "5 mamba2 : 1 attention": {"pattern": ["mamba2"] * 5 + ["attention"]},
    "5 mamba2 : 1 attention, window 2048": {
        "pattern": ["mamba2"] * 5 + [{"use": "attention", "window": 2048}]
    },
}


def main() -> None:
    """Print the tables, and write them with --write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/sequence-costs.md too")
    arguments = parser.parse_args()
    parts = [heading("What a KB of text costs", COMMAND, ("helix-ssm", "torch")), NOTES]
    parts += [section(size) for size in SIZES]
    text = "\n".join(part.rstrip() + "\n" for part in parts)
    print(text)
    if arguments.write:
        TARGET.write_text(text, encoding="utf-8")


NOTES = f"""
Counted by formula over fake tensors, so the machine does not matter; batch 1, float32, 1 KB = 1,024 bytes,
one byte a token. FLOPs: torch's flop counter, helix ops by their contracts, causal attention as half a
square. Bytes of a forward pass: every op reads its inputs and writes its outputs once, unfused; attention
is a fused kernel that keeps scores on the chip and reads keys and values again for each block of 128
queries. Bytes of decoding: all weights once a token, a constant state read and written, a cache of keys
and values read once. A ratio is the transformer's cost over the model's, so larger is better; the targets
are {FEWER_FLOPS} times fewer FLOPs and {FEWER_BYTES} times fewer bytes."""


def section(size: Size) -> str:
    """Return the tables of one size."""
    rival = {
        "use": "language-model",
        "d_model": size.d_model,
        "n_layers": size.n_layers,
        "mixer": {"use": "attention", "n_heads": size.n_heads},
        "channel": {"use": "mlp"},
    }
    wanted = count(rival)
    models = {"transformer": rival}
    models |= {name: match(options, size, wanted) for name, options in CANDIDATES.items()}
    costs = {name: _costs(imagined(table)) for name, table in models.items()}
    lines = [f"\n## {size.name}: {wanted / 1e6:.1f} M parameters\n"]
    lines += ["| model | width | blocks | parameters |", "|---|---:|---:|---:|"]
    lines += [
        f"| {name} | {table['d_model']} | {table['n_layers']} | {count(table):,} |"
        for name, table in models.items()
    ]
    for way, title in WAYS.items():
        lines += ["", f"### {title}", "", *_table(way, costs), "", *_first_met(way, costs)]
    return "\n".join(lines)


WAYS = {"prefill": "A forward pass", "decoding": "Decoding, at that context"}


def imagined(table: dict[str, Any]) -> Imagined:
    """Return the model of a config's table."""
    return Imagined(lambda: default_kernel().build("layer", table))


def count(table: dict[str, Any]) -> int:
    """Return how many parameters a model has."""
    return imagined(table).count()


def match(options: dict[str, Any], size: Size, wanted: int) -> dict[str, Any]:
    """Return a model of the transformer's number of parameters: its depth doubled, its width found.

    A block of these has no mlp, so that two of them stand for one of the transformer's.
    """
    turns = len(options.get("pattern", (1,)))
    depth = 2 * size.n_layers
    for n_layers in (depth + -depth % turns, depth - depth % turns):
        base = {"use": "language-model", "n_layers": n_layers, **options}
        widths = range(size.d_model // 2, 2 * size.d_model, WIDTH_STEP)
        above = bisect_left(widths, wanted, key=lambda width: count({**base, "d_model": width}))
        for width in widths[max(0, above - 1) : above + 1]:
            table = {**base, "d_model": width}
            if abs(count(table) / wanted - 1) < TOLERANCE:
                return table
    raise SystemExit(f"no width of {options} comes within {TOLERANCE:.0%} of {wanted} parameters")


def _costs(model: Imagined) -> dict[tuple[str, int], Cost]:
    ways = {"prefill": model.prefill, "decoding": model.decoding}
    return {(way, context): measure(context) for way, measure in ways.items() for context in CONTEXTS}


def _table(way: str, costs: dict[str, dict[tuple[str, int], Cost]]) -> list[str]:
    heads = [f"{n // 1024}k: MFLOP/KB, MB/KB (ratios)" for n in SHOWN]
    lines = [f"| model | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, own in costs.items():
        cells = []
        for n in SHOWN:
            now, rival = own[way, n], costs["transformer"][way, n]
            ratios = f" ({rival.flops / now.flops:.1f}x, {rival.n_bytes / now.n_bytes:.1f}x)"
            cell = f"{now.flops * 1024 / 1e6:,.0f}, {now.n_bytes * 1024 / 1e6:,.0f}"
            cells.append(cell + (ratios if name != "transformer" else ""))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _first_met(way: str, costs: dict[str, dict[tuple[str, int], Cost]]) -> list[str]:
    lines = [
        f"| context from which on | {FEWER_FLOPS} times fewer FLOPs | {FEWER_BYTES} times fewer bytes |",
        "|---|---:|---:|",
    ]
    rival = costs["transformer"]
    for name, own in costs.items():
        if name == "transformer":
            continue
        flops = [n for n in CONTEXTS if rival[way, n].flops >= FEWER_FLOPS * own[way, n].flops]
        moved = [n for n in CONTEXTS if rival[way, n].n_bytes >= FEWER_BYTES * own[way, n].n_bytes]
        cells = (f"{min(met) // 1024}k" if met else "not up to 256k" for met in (flops, moved))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
