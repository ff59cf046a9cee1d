"""Writes what the programs of this folder found out about a model with a memory as one page."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Iterable

HERE = Path(__file__).parent
PAGE = ROOT / "docs" / "benchmarks" / "memory.md"
PROGRAMS = ("language_model", "compression", "prequential", "passkey")
WAYS = ("without", "with memory", "mixed linearly")
ABOUT = """
Corpora: `python-stdlib` is the standard library's sources, whole files in an order of the seed; `prose` is
long docstrings of numpy, scipy, torch and transformers, in such an order. Where there are several seeds, a
cell is their mean, and the range follows it. What each program does is said where it begins; each adds its
findings to a file beside it, of which this page is made.

A memory mixes logarithms, `mixture = "geometric"`, unless a row says linear. Firmness and prior of the
exponents were chosen on one order of the sources, which is among those of the table; the others, and prose,
are new to them.
"""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks")
    commands = " && ".join(f"python tests/benchmarks/memory/{name}.py" for name in (*PROGRAMS, "report"))
    head = heading("A model with a memory", f"{commands} --write", ["helix-topo", "helix-ssm", "torch"])
    parts = [
        head + ABOUT,
        *(part for part in (equal_time(), compressors(), tiers(), passkeys()) if part),
    ]
    page = "\n".join(parts)
    if parser.parse_args().write:
        PAGE.write_text(page, encoding="utf-8")
    else:
        sys.stdout.write(page)


def equal_time() -> str:
    """Return the table of models that were given equal time."""
    lines = _findings("language_model")
    rows = []
    for name, seconds in sorted({(line["corpus"], line["seconds"]) for line in lines}):
        own = [line for line in lines if (line["corpus"], line["seconds"]) == (name, seconds)]
        cells = [
            f"{_told([each[way]['bits'] for each in own])} | "
            f"{statistics.mean(each[way]['steps'] for each in own):.0f}"
            for way in WAYS
        ]
        rows.append(f"| {name} | {seconds:g} | {' | '.join(cells)} | {len(own)} |")
    return _section(
        "Equal time to train",
        "Bits per byte on 64 KiB of text that was not read, of a byte model (two Mamba layers of width 128), "
        'with and without `[model.memory] use = "hierarchy"`, by either mixture, after so many seconds of '
        "processor time on one thread.",
        f"| corpus | seconds | {''.join(f'{way} | steps | ' for way in WAYS)}seeds |\n|---"
        + "|---:" * (2 + 2 * len(WAYS))
        + "|",
        rows,
    )


def compressors() -> str:
    """Return the table of motifs alone beside compressors."""
    lines = _findings("compression")
    kept = [key for line in lines if line["form"] == "compressors" for key in line]
    names = [key for key in dict.fromkeys(kept) if key not in {"corpus", "seed", "bytes", "form"}]
    forms = [form for form in dict.fromkeys(line["form"] for line in lines) if form != "compressors"]
    rows = []
    for what in (*names, *forms):
        cells = []
        for name in _corpora(lines):
            own = [line for line in lines if line["corpus"] == name]
            found = [line[what] for line in own if what in line]
            found += [line["bits"] for line in own if line["form"] == what]
            cells.append(_told(found))
        rows.append(f"| {f'motifs, {what}' if what in forms else what} | {' | '.join(cells)} |")
    corpora = _corpora(lines)
    seeds = ", ".join(
        f"{name}: {len({line['seed'] for line in lines if line['corpus'] == name})}" for name in corpora
    )
    return _section(
        "Motifs alone, beside compressors",
        f"Bits per byte of 8 MB, each byte predicted before it is remembered. Seeds: {seeds}.",
        f"| | {' | '.join(corpora)} |\n|---|{'---:|' * len(corpora)}",
        rows,
    )


def tiers() -> str:
    """Return the table of a learning model with each tier."""
    lines = _findings("prequential")
    corpora = _corpora(lines)
    kept = dict.fromkeys(what for line in lines for what in line["bits"])
    rows = []
    for what in kept:
        found = [
            [line["bits"][what] for line in lines if line["corpus"] == name and what in line["bits"]]
            for name in corpora
        ]
        rows.append(f"| {what} | {' | '.join(map(_told, found))} |")
    own = {name: [line for line in lines if line["corpus"] == name] for name in corpora}
    sizes = ", ".join(f"{name}: {len(each)} of {each[0]['bytes'] / 1e6:g} MB" for name, each in own.items())
    return _section(
        "A model that learns as it reads, and each tier beside it",
        "Bits per byte, each predicted before anything is learned of it; the model (two Mamba layers of "
        f"width 128) reads once. Seeds: {sizes}.",
        f"| | {' | '.join(corpora)} |\n|---|{'---:|' * len(corpora)}",
        rows,
    )


def passkeys() -> str:
    """Return the table of numbers said once."""
    rows = [
        f"| {line['bytes']:,} | {line['budget']} | {line['trials']} | {100 * line['with memory']:.0f} % | "
        + ("not tried" if line["model alone"] is None else f"{100 * line['model alone']:.0f} %")
        + f" | {line.get('microseconds a read') or 0:.0f} |".replace(" 0 |", " not measured |")
        for line in _findings("passkey")
    ]
    return _section(
        "A number that was said once",
        "Six digits, said somewhere in a text and asked for at its end: how often all six came back, and "
        "what a read of the memory costs then, at one place. Measured before logarithms were mixed, with the "
        "linear mixture, on an Intel Xeon at 2.50 GHz. With logarithms, in 256 MiB, 5 of 5 came back after "
        "4,096 bytes, and 4 of 5 after 65,536; longer texts were not tried.",
        "| bytes | MiB of motifs | trials | with memory | model alone | microseconds a read |\n"
        + "|---:" * 6
        + "|",
        rows,
    )


def _findings(program: str) -> list[dict[str, Any]]:
    path = HERE / f"{program}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def _corpora(lines: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["corpus"] for line in lines))


def _told(found: list[float]) -> str:
    if not found:
        return "not measured"
    mean = f"{statistics.mean(found):.3f}"
    return mean if len(found) == 1 else f"{mean} ({min(found):.3f} to {max(found):.3f})"


def _section(title: str, text: str, head: str, rows: list[str]) -> str:
    if not rows:
        return ""
    return "\n".join([f"## {title}", "", text, "", head, *rows, ""])


if __name__ == "__main__":
    main()
