"""The checkpoints' benchmarks: ratios to safetensors, torch.save and DCP, of one run.

Usage: python tests/benchmarks/checkpoint/run.py [--write] [--directory DIR] [--rounds N] [--small]

It needs about 12 GiB on the disk of DIR (a temporary directory there) and 10 GiB of memory; --small runs
the same on a hundredth of the bytes, to see that it works. Rounds of all formats are interleaved; the
numbers are medians.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from checkpoint import formats
from heading import ROOT, heading

from helix_kernel import checkpoint
from helix_kernel.checkpoint import Checkpoint, CheckpointManager

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from checkpoint.formats import Format, State

TARGET = ROOT / "docs/benchmarks/checkpoint.md"
GIB = 2**30
PEERS = ("safetensors", "torch.save", "DCP")

Times = dict[str, float]
K = TypeVar("K")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/checkpoint.md as well")
    parser.add_argument("--directory", type=Path, help="where to make the temporary directory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="a hundredth of the bytes")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning)  # DCP's, on running without ranks
    head = heading(
        "Checkpoints: speed",
        "python tests/benchmarks/checkpoint/run.py --write",
        ["torch", "safetensors", "numpy", "xxhash"],
    )
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        bench = Bench(Path(directory), options.rounds, GIB // 100 if options.small else GIB)
        document = "\n".join([head, *bench.run()])
    print(document)
    if options.write:
        TARGET.write_text(document + "\n", encoding="utf-8")


class Bench:
    """All measurements.

    Args:
        directory: Where to write.
        rounds: How often each thing is measured.
        size: What stands for 1 GiB.
    """

    def __init__(self, directory: Path, rounds: int, size: int) -> None:
        self.directory = directory
        self.rounds = rounds
        self.model = tensors("model", 150, size)
        self.size = size
        self.rows: list[str] = []
        self.seconds: list[str] = []
        self.compressed: list[str] = []

    def run(self) -> list[str]:
        """Measure everything and return the lines of the document."""
        self.large()
        self.small()
        self.moments()
        self.compression()
        self.own()
        return [
            "How many times as fast as the peer Helix is (medians of interleaved rounds); the goal in",
            "brackets. Every save ends when the disk has it (fsync of file and directory); Helix also",
            "digests each byte when it saves, and checks each when it loads, but not by a map. Cold: not in",
            "the page cache.",
            "",
            "| | safetensors | torch.save | DCP |",
            "|---|---|---|---|",
            *self.rows,
            "",
            "The same in seconds. Raw is one file of the same bytes, plainly written and brought to the",
            "disk: the bound of a writer that goes through the page cache.",
            "",
            "| | Helix | safetensors | torch.save | DCP | raw |",
            "|---|---|---|---|---|---|",
            *self.seconds,
            "",
            f"Compression (bitshuffle-lz4, off by default) of {readable(self.size)} in 150 tensors:",
            "seconds compressed, and in brackets uncompressed. All are float32. Random: of a normal",
            "distribution. Bits: random bits, which are left as they are. Trained: with the precision of",
            "bfloat16. Moments: squares, three quarters of them zero, as of an embedding's rare rows.",
            "",
            "| | size | save | load in place, warm | load in place, cold |",
            "|---|---|---|---|---|",
            *self.compressed,
        ]

    def large(self) -> None:
        """1 GiB in 150 tensors: save, load in place, map."""
        title = f"{readable(self.size)} in 150 tensors"
        saved = self.saves(self.model)
        self.row(f"save, {title}", saved, (1.5, 3, 3))
        paths = self.keep(self.model)
        into = {name: torch.empty_like(tensor).fill_(0) for name, tensor in self.model.items()}
        in_place = {f.name: lambda f=f: f.load_into(into, paths[f.name]) for f in formats.FORMATS}
        cold = self.interleaved(in_place, lambda name: formats.forget(paths[name]))
        self.row("load in place, cold", cold, (0.9, 0.9, None))
        warm = self.interleaved(in_place, lambda name: read_all(paths[name]))
        self.row("load in place, warm", warm, (0.7, None, 2))
        for title, use in (("", lambda _: None), (" and read all of it", touch)):
            mapped = self.interleaved(
                {f.name: lambda f=f, use=use: use(f.map(paths[f.name])) for f in formats.FORMATS[:3]},
                lambda name: read_all(paths[name]),
            )
            self.row(f"load by memory map{title}, warm", mapped, (1, 1, None))
        self.drop(paths)

    def small(self) -> None:
        """5,000 tensors of 4 KB."""
        state = tensors("small", 5000, 5000 * 4096)
        self.row("save, 5,000 tensors of 4 KB", self.saves(state), (2, 3, 20))
        paths = self.keep(state)
        loaded = self.interleaved(
            {f.name: lambda f=f: f.load(paths[f.name]) for f in formats.FORMATS},
            lambda name: read_all(paths[name]),
        )
        self.row("load, 5,000 tensors of 4 KB", loaded, (1, 3, 20))
        self.drop(paths)

    def moments(self) -> None:
        """3 GiB with Adam's moments."""
        state = {
            f"{kind}.{name}": tensor.clone()
            for kind in ("weight", "exp_avg", "exp_avg_sq")
            for name, tensor in self.model.items()
        }
        self.row(f"save, {readable(3 * self.size)} with moments", self.saves(state, rounds=3), (1.2, 2.5, 3))

    def compression(self) -> None:
        """Save and load with compression and without, of states that shrink more and less."""
        for title, state in compressible(self.size):
            times = defaultdict(list)
            into = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
            paths = {how: self.directory / f"compression-{how}" for how in (None, "bitshuffle-lz4")}
            for _ in range(self.rounds):
                for how, path in paths.items():
                    formats.remove(path)
                    save = functools.partial(checkpoint.save, path, state, compression=how)
                    load = functools.partial(checkpoint.load_into, path, into)
                    times[how, "save"].append(timed(save))
                    read_all(path)
                    times[how, "warm"].append(timed(load))
                    formats.forget(path)
                    times[how, "cold"].append(timed(load))
            sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in paths.values()]
            for path in paths.values():
                formats.remove(path)
            self.compressed_row(title, sizes[1] / sizes[0], medians(times))

    def compressed_row(
        self, title: str, share: float, middle: Mapping[tuple[str | None, str], float]
    ) -> None:
        """Add a line to the table of compression."""
        cells = [
            f"{middle['bitshuffle-lz4', what]:.3f} ({middle[None, what]:.3f})"
            for what in ("save", "warm", "cold")
        ]
        self.compressed.append(f"| {title} | {share:.0%} | {' | '.join(cells)} |")
        print(self.compressed[-1], file=sys.stderr, flush=True)

    def own(self) -> None:
        """What peers have no word for: incremental, in the background, a slice, memory."""
        self.incremental()
        held, whole = self.background()
        state = readable(self.size)
        self.seconds += [
            "",
            f"- Training held up by a save of {state} in the background: {held:.3f} s,",
            f"  {held / whole:.2f} of a synchronous save (goal 0.2).",
            f"- A slice of 10 rows of an array of {readable(self.size // 5)}, opened and checked, from the",
            f"  page cache: {self.slice() * 1e3:.1f} ms (goal 5).",
            f"- Most memory that a synchronous save of {state} adds: {self.memory():.0f} MiB (goal 64).",
        ]

    def incremental(self) -> None:
        """2 % of the state changed since the last save, against a whole save by safetensors."""
        state = dict(self.model)
        times = defaultdict(list)
        with CheckpointManager(self.directory / "run", keep=1, incremental=True) as manager:
            manager.save(0, state)
            for step in range(1, self.rounds + 1):
                for name in list(state)[:3]:
                    state[name] = state[name] + 1
                times["Helix"].append(timed(lambda step=step: manager.save(step, state)))
                times["safetensors"].append(self.save_once(formats.FORMATS[1], state))
        self.row("save, 2 % of the tensors changed, incremental", medians(times), (5, None, None))
        formats.remove(self.directory / "run")

    def background(self) -> tuple[float, float]:
        """Return the seconds that training is held up by, and those of a synchronous save."""
        times = defaultdict(list)
        with (
            CheckpointManager(self.directory / "a", keep=1, async_=True) as manager,
            CheckpointManager(self.directory / "b", keep=1) as other,
        ):
            manager.save(0, self.model)
            for step in range(1, self.rounds + 1):
                manager.wait()
                times["held"].append(timed(lambda step=step: manager.save(step, self.model)))
                manager.wait()
                times["whole"].append(timed(lambda step=step: other.save(step, self.model)))
        formats.remove(self.directory / "a")
        formats.remove(self.directory / "b")
        middle = medians(times)
        return middle["held"], middle["whole"]

    def slice(self) -> float:
        """Return the seconds that ten rows take."""
        path = self.directory / "slice"
        formats.FORMATS[0].save({"x": torch.randn(self.size // 5 // 4096, 1024)}, path)
        read_all(path)

        def read() -> None:
            with Checkpoint.open(path) as checkpoint:
                checkpoint["x"][777:787]

        seconds = statistics.median(timed(read) for _ in range(20))
        formats.remove(path)
        return seconds

    def memory(self) -> float:
        """Return the MiB by which a save raises a process's peak."""
        code = (
            "import sys, torch; from pathlib import Path; from helix_kernel.checkpoint import save\n"
            "def peak(): return int(next(line for line in open('/proc/self/status') if 'VmHWM' in line)"
            ".split()[1])\n"
            "save(Path(sys.argv[1]) / 'first', {'w': torch.zeros(1000)})\n"
            "state = {str(i): torch.full((int(sys.argv[2]) // 600,), 1.0) for i in range(150)}\n"
            "before = peak(); save(Path(sys.argv[1]) / 'second', state); print((peak() - before) / 1024)"
        )
        path = self.directory / "memory"
        path.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(self.size)],
            check=True,
            capture_output=True,
            text=True,
        )
        formats.remove(path)
        return float(done.stdout)

    def saves(self, state: State, rounds: int | None = None) -> Times:
        """Return the median seconds of a durable save by each format, and of the raw bytes."""
        times = defaultdict(list)
        for _ in range(rounds or self.rounds):
            for form in formats.FORMATS:
                times[form.name].append(self.save_once(form, state))
            path = self.directory / "raw"
            times["raw"].append(timed(lambda path=path: formats.write_raw(state, path)))
            formats.remove(path)
        return medians(times)

    def save_once(self, form: Format, state: State) -> float:
        """Return the seconds of one durable save."""
        path = self.directory / form.name
        seconds = timed(lambda: form.save(state, path))
        formats.remove(path)
        return seconds

    def keep(self, state: State) -> dict[str, Path]:
        """Save by each format, for loading."""
        paths = {form.name: self.directory / f"keep-{form.name}" for form in formats.FORMATS}
        for form in formats.FORMATS:
            form.save(state, paths[form.name])
        return paths

    def drop(self, paths: dict[str, Path]) -> None:
        """Remove what `keep` saved."""
        for path in paths.values():
            formats.remove(path)

    def interleaved(self, jobs: dict[str, Callable[[], object]], before: Callable[[str], object]) -> Times:
        """Return each job's median seconds, without what is done before each."""
        times = defaultdict(list)
        for _ in range(self.rounds):
            for name, job in jobs.items():
                before(name)
                times[name].append(timed(job))
        return medians(times)

    def row(self, title: str, times: Times, goals: tuple[float | None, ...]) -> None:
        """Add a line to each table."""
        cells = [
            f"{times[name] / times['Helix']:.2f}{f' ({goal})' if goal else ''}" if name in times else ""
            for name, goal in zip(PEERS, goals, strict=True)
        ]
        self.rows.append(f"| {title} | {' | '.join(cells)} |")
        names = ("Helix", *PEERS, "raw")
        seconds = [f"{times[name]:.3f}" if name in times else "" for name in names]
        self.seconds.append(f"| {title} | {' | '.join(seconds)} |")
        print(self.rows[-1], self.seconds[-1], file=sys.stderr, flush=True)


def tensors(kind: str, count: int, nbytes: int) -> State:
    """Return so many float32 tensors of equal size, of random numbers, named as a model's are."""
    torch.manual_seed(0)
    size = nbytes // count // 4
    return {f"{kind}.blocks.{i // 10}.weight{i % 10}": torch.randn(size) for i in range(count)}


def compressible(size: int) -> Iterator[tuple[str, State]]:
    """Yield title and state, of so many bytes in 150 tensors, one after the other."""
    random = tensors("model", 150, size)
    yield "random", random
    yield (
        "bits",
        {
            name: torch.randint(-(2**31), 2**31, tensor.shape, dtype=torch.int32).view(torch.float32)
            for name, tensor in random.items()
        },
    )
    yield "trained", {name: tensor.bfloat16().float() for name, tensor in random.items()}
    yield (
        "moments",
        {
            name: tensor.square() * (torch.arange(len(tensor)) % 4096 < 1024)
            for name, tensor in random.items()
        },
    )


def timed(job: Callable[[], object]) -> float:
    """Return the seconds that a job takes."""
    start = time.perf_counter()
    result = job()
    seconds = time.perf_counter() - start
    del result
    return seconds


def medians(times: Mapping[K, list[float]]) -> dict[K, float]:
    """Return the median of each list."""
    return {name: statistics.median(values) for name, values in times.items()}


def read_all(path: Path) -> None:
    """Bring a directory's files into the page cache."""
    for entry in path.rglob("*"):
        if entry.is_file():
            with entry.open("rb", buffering=0) as file:
                while file.read(2**24):
                    pass


def touch(state: State) -> None:
    """Read every element."""
    for tensor in state.values():
        tensor.sum()


def readable(nbytes: int) -> str:
    """Return a size in GiB or MiB."""
    return f"{nbytes / GIB:.0f} GiB" if nbytes >= GIB else f"{nbytes / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
