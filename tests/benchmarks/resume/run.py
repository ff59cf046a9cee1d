"""Whether a killed and resumed run is the run that never stopped, with Helix, Lightning and the HF Trainer.

Usage: python tests/benchmarks/resume/run.py [--peers-python PATH] [--write]

Peers are run where they are importable: by this interpreter, or by the one of --peers-python (with
lightning, accelerate, transformers, torchdata, and torch of the same version).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import attrs

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share

import with_helix
from comparing import KEPT, Comparison, compare
from heading import ROOT, heading
from notes import INTRODUCTION, NOTES
from resume_task import ACCUMULATE, Job
from systems import HELIX, IGNORING, PEERS, FailedRunError, Runner, System, losses_after

TARGET = ROOT / "docs/benchmarks/resume.md"
STEPS, CHECKPOINT_EVERY = 12, 3
ROUNDS, ROW_SECONDS, DONE = 3, 0.00125, (10, 500)
"""Of the measurement of cost: repetitions, time of a row (a quarter of a batch), and steps done."""


@attrs.frozen(kw_only=True)
class Case:
    """A way of being stopped.

    Args:
        name: What the table calls it.
        draws: Whether the dataset draws random numbers.
        workers: Of the run that is killed, and of the one that never stops.
        resumed_workers: Of the run that goes on.
        killed_in: The step, from 1, in whose second micro-batch the process is killed.
    """

    name: str
    draws: bool = True
    workers: int = 0
    resumed_workers: int = 0
    killed_in: int = 8

    @property
    def checkpoint_at(self) -> int:
        """Step of the last checkpoint before the kill."""
        return (self.killed_in - 1) // CHECKPOINT_EVERY * CHECKPOINT_EVERY


CASES = (
    Case(name="nothing drawn", draws=False),
    Case(name="draws, first epoch", killed_in=5),
    Case(name="draws, second epoch"),
    Case(name="draws, 2 workers", workers=2, resumed_workers=2),
    Case(name="draws, 0 to 2 workers", resumed_workers=2),
    Case(name="draws, 2 to 0 workers", workers=2),
)


@attrs.frozen(kw_only=True)
class Cost:
    """What resuming takes after so many steps, until the first micro-batch is trained on.

    Args:
        rows: Rows that the dataset had made by then.
        seconds: Time since the process began.
    """

    rows: int
    seconds: float


def main() -> None:
    """Run all, print, and write the document where that is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers-python", default=sys.executable, help="interpreter that has the peers")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} as well")
    options = parser.parse_args()
    command = "python tests/benchmarks/resume/run.py --peers-python PATH --write"
    head = heading("Resuming: exactness", command, ["torch", "numpy"])
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="helix-resume-"))
        runner = stack.enter_context(make_runner(Path(name), options.peers_python))
        missing = [system for system in PEERS if not runner.available(system)]
        systems = [HELIX, *(system for system in PEERS if system not in missing)]
        found = {system: verify(runner, system) for system in systems}
        measured = [*systems, *([IGNORING] if runner.available(IGNORING) else [])]
        costs = {system: measure_costs(runner, system) for system in measured}
    document = "\n".join(
        [
            head,
            INTRODUCTION,
            *absent(missing),
            *([f"Peers: {versions(options.peers_python)}.", ""] if len(systems) > 1 else []),
            *summary(found),
            *details(found),
            *cost_table(costs),
            NOTES,
        ]
    )
    print(document)
    if options.write:
        TARGET.write_text(document + "\n")


def make_runner(folder: Path, python: str) -> Runner:
    """Return what runs jobs, with the plugin of this benchmark installed in a folder."""
    site = folder / "site"
    site.mkdir()
    with_helix.install_plugin(site)
    return Runner(python, site)


def verify(runner: Runner, system: System, cases: tuple[Case, ...] = CASES) -> dict[Case, Comparison]:
    """Stop and resume a system in each way, and compare; what cases share is run once."""
    folder = runner.folder.parent / f"{system.script}-{system.variant}"
    done: dict[Job, Job] = {}
    found = {}
    for number, case in enumerate(cases):
        job = Job(
            out="",
            steps=STEPS,
            checkpoint_every=CHECKPOINT_EVERY,
            draws=case.draws,
            workers=case.workers,
            variant=system.variant,
        )
        kill_at = case.killed_in * ACCUMULATE
        whole = once(runner, system, job, done, folder)
        killed = once(runner, system, attrs.evolve(job, kill_at=kill_at), done, folder)
        resumed = attrs.evolve(
            job, out=str(folder / f"resumed-{number}"), workers=case.resumed_workers, resume=True
        )
        try:
            runner.resume_copy(system, killed, resumed)
        except FailedRunError as error:
            found[case] = Comparison(first=f"fails: {error.reason}")
            continue
        at = case.checkpoint_at
        losses = [losses_after(system, one, at * ACCUMULATE, at) for one in (whole, resumed)]
        found[case] = compare(whole, resumed, checkpoint_at=at, losses=(losses[0], losses[1]))
        print(f"{system.name}, {case.name}: {verdict(found[case])}", file=sys.stderr)
    return found


def once(runner: Runner, system: System, job: Job, done: dict[Job, Job], folder: Path) -> Job:
    """Run a job unless it has been; return it with its folder."""
    if job not in done:
        done[job] = attrs.evolve(job, out=str(folder / f"run-{len(done)}"))
        runner.run(system, done[job])
    return done[job]


def measure_costs(runner: Runner, system: System) -> dict[int, Cost]:
    """Measure how long a run that has done so many steps takes to go on."""
    return {steps: measure_cost(runner, system, steps) for steps in DONE}


def measure_cost(runner: Runner, system: System, steps: int) -> Cost:
    """Train for so many steps, stop, and go on until the first micro-batch, several times."""
    job = Job(
        out=str(runner.folder.parent / f"cost-{system.script}-{system.variant}-{steps}"),
        steps=2 * max(DONE),
        checkpoint_every=steps,
        epoch_batches=2 * max(DONE) * ACCUMULATE,
        row_seconds=ROW_SECONDS,
        variant=system.variant,
        kill_at=(steps + 1) * ACCUMULATE,
    )
    runner.run(system, job)
    resumed = attrs.evolve(job, resume=True, kill_at=1)
    seconds = []
    for _ in range(ROUNDS):
        begun = time.time()
        runner.run(system, resumed)
        first = json.loads(resumed.journal.read_text().splitlines()[0])
        seconds.append(first["time"] - begun)
    print(f"{system.name}, {steps} steps done: {first['rows']} rows, {seconds}", file=sys.stderr)
    return Cost(rows=first["rows"], seconds=statistics.median(seconds))


def absent(missing: list[System]) -> list[str]:
    """Say which peers are not installed."""
    if not missing:
        return []
    return [f"Not installed, so not measured: {', '.join(system.name for system in missing)}.", ""]


def versions(python: str) -> str:
    """Return the peers' versions, as their interpreter has them."""
    program = (
        "from importlib.metadata import version\n"
        "names = 'lightning', 'transformers', 'accelerate', 'torchdata', 'torch', 'numpy'\n"
        "print(', '.join(f'{name} {version(name)}' for name in names))"
    )
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def summary(found: dict[System, dict[Case, Comparison]]) -> list[str]:
    """Return the table of what is exact."""
    lines = ["## Is the resumed run the same to the bit?", "", row("trainer", *(case.name for case in CASES))]
    lines.append(row(*["---"] * (len(CASES) + 1)))
    for system, comparisons in found.items():
        lines.append(row(system.name, *(verdict(comparisons[case]) for case in CASES)))
    lines += ["", row("trainer", "what its user writes"), row("---", "---")]
    return [*lines, *(row(system.name, system.written) for system in found), ""]


def verdict(comparison: Comparison) -> str:
    """Return a word or two on a comparison."""
    if comparison.is_exact:
        return "exact"
    if not comparison.differences:
        return "fails"
    if comparison.other_batches:
        return f"no, {comparison.other_batches} of {comparison.batches} batches"
    return f"no, {comparison.first.split(' after')[0]}"


def details(found: dict[System, dict[Case, Comparison]]) -> list[str]:
    """Return a table for each case: what differs first, and by how much."""
    lines = ["## What differs, and by how much", ""]
    for case in CASES:
        lines += [f"### {case.name[0].upper()}{case.name[1:]}", ""]
        lines += [row("trainer", "differs first", "losses", *KEPT), row(*["---"] * (len(KEPT) + 3))]
        for system, comparisons in found.items():
            comparison = comparisons[case]
            numbers = (amount(comparison.differences.get(name)) for name in ("losses", *KEPT))
            lines.append(row(system.name, comparison.first or "nothing", *numbers))
        lines.append("")
    return lines


def cost_table(costs: dict[System, dict[int, Cost]]) -> list[str]:
    """Return the table of what resuming takes."""
    few, many = DONE
    lines = [
        "## What resuming takes",
        "",
        row("trainer", f"rows made, {few} steps done", f"{many} steps done", f"seconds, {few}", f"{many}"),
        row(*["---"] * 5),
    ]
    for system, cost in costs.items():
        one, other = cost[few], cost[many]
        lines.append(row(system.name, one.rows, other.rows, f"{one.seconds:.1f}", f"{other.seconds:.1f}"))
    return [*lines, ""]


def amount(value: float | None) -> str:
    """Return a relative difference in few digits."""
    if value is None:
        return ""
    return f"{value:.0e}" if value else "0"


def row(*cells: object) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    main()
