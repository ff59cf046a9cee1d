"""What the operations of memory tiers cost, in time and bytes, as a tier grows.

Usage: python tests/benchmarks/memory/costs.py [--tiers …] [--most N] [--out FILE] [--write]

What the file has already is not measured again. A tier is a class of `TIERS`: it is made for so many entries,
filled, and names its operations, each a function that does some at once and returns how many.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch.nn.functional import normalize

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "sequence")]
from heading import ROOT, heading
from results import once, read

from helix_kernel import default_kernel
from helix_topo.motifs.tables import COUNTERS

if TYPE_CHECKING:
    from collections.abc import Callable

RESULTS = Path(__file__).with_name("costs.jsonl")
TARGET = ROOT / "docs/benchmarks/memory-costs.md"
COMMAND = "python tests/benchmarks/memory/costs.py --write"
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
REPEATS = 5


class Tier(Protocol):
    """A tier that holds as many entries as it was made for.

    Attributes:
        most: Entries beyond which it is not measured.
    """

    most: int

    def __init__(self, size: int) -> None:
        """Make and fill it."""
        ...

    def operations(self) -> dict[str, Callable[[], int]]:
        """Return what can be timed, by name; each call does some and returns how many."""
        ...

    def n_bytes(self) -> int:
        """Return what the tier takes."""
        ...

    def facts(self) -> dict[str, str]:
        """Return what else a reader should know of this size, by name."""
        ...


class ExactVectors:
    """`vectors`, keys of 64 numbers around 1,000 centres, all compared."""

    most, search = 10_000_000, "exact"
    _D, _CENTRES, _BATCH, _FILL, _K = 64, 1_000, 64, 50_000, 10

    def __init__(self, size: int) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._centres = torch.randn(self._CENTRES, self._D, generator=self._generator)
        table = {"use": "vectors", "d_key": self._D, "d_value": 1, "capacity": size, "search": self.search}
        self._memory = default_kernel().build("memory_tier", table)
        for start in range(0, size, self._FILL):
            self._write(min(self._FILL, size - start))

    def operations(self) -> dict[str, Callable[[], int]]:
        """See `Tier`."""
        return {
            "read, of 64 at once": lambda: self._read(64),
            "read, alone": lambda: self._read(1),
            "write over the least stable": lambda: self._write(self._BATCH),
        }

    def n_bytes(self) -> int:
        """See `Tier`."""
        return int(self._memory.stats().n_bytes)

    def facts(self) -> dict[str, str]:
        """See `Tier`."""
        return {}

    def _keys(self, count: int) -> torch.Tensor:
        centres = torch.randint(self._CENTRES, (count,), generator=self._generator)
        noise = torch.randn(count, self._D, generator=self._generator)
        return normalize(self._centres[centres] + 0.5 * noise)

    def _write(self, count: int) -> int:
        self._memory.write(self._keys(count), torch.zeros(count, 1), time=0.0)
        return count

    def _read(self, count: int) -> int:
        self._memory.read(self._keys(count), self._K)
        return count


class ApproximateVectors(ExactVectors):
    """`vectors`, as the exact ones, by a graph of neighbours."""

    most, search = 1_000_000, "approximate"

    def facts(self) -> dict[str, str]:
        """Say how many of the ten nearest the graph finds."""
        from helix_topo.search.exact import nearest

        queries = self._keys(200)
        found = self._memory.read(queries, self._K).ids
        slots, _ = nearest(queries, self._memory.keys, self._memory.ids, self._K)
        right = (found.unsqueeze(2) == self._memory.ids[slots].unsqueeze(1)).any(2)
        return {"of the ten nearest, found": f"{float(right.float().mean()):.1%}"}


class Arcs:
    """The graph of `cycles`: arcs between random motifs, one of ten of which is seen three times more.

    An entry is an arc. To analyse is told by arc that is analysed.
    """

    most = 10_000_000
    _BATCH = 65_536

    def __init__(self, size: int) -> None:
        from helix_topo.graph import ARC_BYTES, TransitionGraph

        self._generator, self._n_motifs = torch.Generator().manual_seed(0), max(2, size // 4)
        # A bucket that is full gives arcs up: with room to spare almost none of them is.
        self._graph = TransitionGraph(budget=2 * size * ARC_BYTES + 16 * ARC_BYTES)
        for start in range(0, size, self._BATCH):
            arcs = self._arcs(min(self._BATCH, size - start))
            for part in (arcs, *[arcs[:, ::10].contiguous()] * 3):
                self._graph.add(*part)

    def operations(self) -> dict[str, Callable[[], int]]:
        """See `Tier`."""
        return {"count": self._count, "analyse": self._analyse, "predict 256 symbols": self._predict}

    def n_bytes(self) -> int:
        """See `Tier`."""
        return self._graph.n_bytes

    def facts(self) -> dict[str, str]:
        """Say how many of the arcs that were analysed are on cycles."""
        arcs = self._graph.arcs(least=self._graph.least)
        return {"on cycles": f"{float((arcs.component >= 0).mean()):.1%}"}

    def _arcs(self, count: int) -> torch.Tensor:
        ends = torch.randint(self._n_motifs, (2, count), generator=self._generator)
        ends[:, ::10] %= max(2, self._n_motifs // 5)  # those that recur are among few motifs, on cycles
        return torch.cat([ends, ends[1:] % 256])

    def _count(self) -> int:
        self._graph.add(*self._arcs(self._BATCH))
        return self._BATCH

    def _analyse(self) -> int:
        self._graph.analyse()
        return max(1, int((self._graph.count >= self._graph.least).sum()))

    def _predict(self) -> int:
        self._graph.predict(torch.randint(self._n_motifs, (4096,), generator=self._generator), 256)
        return 4096


class Motifs:
    """`motifs`, of a text of random words, the n-th as frequent as n^-1.2.

    An entry is a context. The budget is a mebibyte and 32 bytes an entry; what is told of writes and
    predictions is told by symbol.
    """

    most = 10_000_000
    _WORDS, _EXPONENT, _PLACES = 50_000, 1.2, 4096

    def __init__(self, size: int) -> None:
        # So few at once that what is written while it is timed changes little.
        self._bytes = max(64, min(65_536, size // 64))
        draw = self._draw = np.random.default_rng(0)
        letters = draw.integers(97, 123, (self._WORDS, 12), dtype=np.uint8)
        lengths = draw.integers(1, 13, self._WORDS)
        self._words = [row[:length].tobytes() for row, length in zip(letters, lengths, strict=True)]
        table = {"use": "motifs", "budget": (1 << 20) + 32 * size}
        self._motifs = default_kernel().build("memory_tier", table)
        while (missing := size - self._count("added")) > 0:
            self._motifs.score(self._text(max(64, min(65_536, missing // 9))))

    def operations(self) -> dict[str, Callable[[], int]]:
        """See `Tier`."""
        return {
            "read and write a symbol": self._score,
            "predict 256 symbols": lambda: self._predict(self._PLACES),
            "predict, alone": lambda: self._predict(1),
        }

    def n_bytes(self) -> int:
        """See `Tier`."""
        return int(self._motifs.stats().n_bytes)

    def facts(self) -> dict[str, str]:
        """Say how many contexts gave way."""
        return {"gave way": f"{self._count('evicted') / self._count('added'):.1%}"}

    def _count(self, name: str) -> int:
        return int(self._motifs.counters[COUNTERS.index(name)])

    def _text(self, n_bytes: int) -> torch.Tensor:
        chosen = self._draw.zipf(self._EXPONENT, n_bytes) % self._WORDS
        text = bytearray(b" ".join([self._words[number] for number in chosen])[:n_bytes])
        return torch.frombuffer(text, dtype=torch.uint8).long()

    def _score(self) -> int:
        self._motifs.score(self._text(self._bytes))
        return self._bytes

    def _predict(self, n_places: int) -> int:
        ids = self._text(n_places + self._motifs.window)
        self._motifs.advance(ids[None, -n_places:], ids[None, : self._motifs.window], write=False)
        return n_places


TIERS: dict[str, type[Tier]] = {
    "motifs": Motifs,
    "vectors, exact": ExactVectors,
    "vectors, approximate": ApproximateVectors,
    "arcs of cycles": Arcs,
}


def main() -> None:
    """Measure what is missing, and write the document with --write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiers", nargs="*", default=list(TIERS), choices=TIERS)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="entries")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} too")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    default_kernel()  # or the first tier would be charged for it
    for name in arguments.tiers:
        for size in SIZES:
            if size <= min(arguments.most, TIERS[name].most):
                once(arguments.out, {"tier": name, "entries": size}, lambda n=name, s=size: measure(n, s))
    text = report(arguments.out)
    print(text)
    if arguments.write:
        TARGET.write_text(text, encoding="utf-8")


def measure(name: str, size: int) -> dict[str, Any]:
    """Return what a tier of one size costs: µs an operation, the median of some, and bytes an entry."""
    started = time.process_time()
    tier = TIERS[name](size)
    filled = time.process_time() - started
    microseconds = {"fill": 1e6 * filled / size}
    for operation, run in tier.operations().items():
        run()
        microseconds[operation] = statistics.median(_once(run) for _ in range(REPEATS))
    return {
        "microseconds": {what: round(value, 2) for what, value in microseconds.items()},
        "bytes_an_entry": round(tier.n_bytes() / size, 1),
        "facts": tier.facts(),
    }


def report(path: Path) -> str:
    """Return the document."""
    parts = [heading("What a memory costs", COMMAND, ("helix-topo", "torch", "usearch")), NOTE]
    results = read(path)
    for name, tier in TIERS.items():
        own = [result for result in results if result["tier"] == name]
        if not own:
            continue
        operations, facts = list(own[0]["microseconds"]), list(own[0]["facts"])
        columns = [*(f"{what}, µs" for what in operations), "bytes an entry", *facts]
        parts += [f"\n## {name}\n\n{cleandoc(tier.__doc__ or '')}\n", _row("entries", columns)]
        parts.append("|---:|" + "---:|" * len(columns))
        for result in own:
            cells = [f"{result['microseconds'][what]:,.1f}" for what in operations]
            cells += [f"{result['bytes_an_entry']:,.0f}", *(result["facts"][fact] for fact in facts)]
            parts.append(_row(f"{result['entries']:,}", cells))
    return "\n".join(parts) + "\n"


NOTE = f"""
Microseconds of the processor's time, on one thread; the median of {REPEATS} calls, divided by what one call
does. `fill` is the mean over all that was written until the tier was full, in large batches; at 1,000 entries
it holds what is loaded once. Bytes are what the tier sets aside, all tables together. Each tier was measured
up to as many entries as came in a few minutes; larger ones were not tried.
"""


def _once(run: Callable[[], int]) -> float:
    started = time.process_time()
    count = run()
    return 1e6 * (time.process_time() - started) / count


def _row(first: str, cells: list[str]) -> str:
    return f"| {first} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
