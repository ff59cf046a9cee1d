"""Shows of a config that a killed run, resumed, ends as one that was never stopped: to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel import load_config
from helix_kernel.checkpoint import Checkpoint
from helix_kernel.errors import ArgumentError, HelixError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@attrs.frozen(kw_only=True)
class Verified:
    """What a comparison of two runs came to.

    Args:
        steps: Steps of each run.
        checkpoint_at: The step whose checkpoint the second was resumed from.
        killed_in: The step in which it was killed, from 1.
        arrays: How many arrays the last checkpoints hold.
        differences: What differs, a line each; empty where all is equal to the bit.
    """

    steps: int
    checkpoint_at: int
    killed_in: int
    arrays: int
    differences: tuple[str, ...]


def verify_resume(file: str, overrides: Sequence[str], *, steps: int = 8) -> Verified:
    """Train a config for a few steps, twice: in one go, and killed by SIGKILL, then resumed.

    Each run is a process of its own. The killed one dies in the step after the one that follows a checkpoint,
    before the last of its micro-batches. Then the two last
    checkpoints are compared: every array and value, so weights, moments, averages, random numbers and the
    place in the data; and the two files of metrics.

    Args:
        file: The config.
        overrides: Assignments on top of it; those of the trainer's steps, checkpoints and directory count
            for nothing here.
        steps: Steps of each run, at least 4.

    Raises:
        ArgumentError: `steps` is below 4.
        HelixError: A run failed; the message ends with what it said.
    """
    if steps < 4:
        raise ArgumentError(f"steps is {steps}, allowed is >= 4: two before the kill, and two after it")
    checkpoint_at, killed_in = steps // 2, steps // 2 + 2
    with tempfile.TemporaryDirectory(prefix="helix-verify-") as folder:
        whole, broken = Path(folder) / "whole", Path(folder) / "broken"
        own = [
            *overrides,
            f"trainer.steps={steps}",
            f"trainer.checkpoint_every={checkpoint_at}",
            "trainer.log_every=1",
            "trainer.resume=false",
        ]
        _run(file, [*own, f"trainer.out={whole}"])
        _run(file, [*own, f"trainer.out={broken}"], die_in=killed_in)
        _run(file, [*own, f"trainer.out={broken}", "trainer.resume=true"])
        last = f"checkpoints/step-{steps:08d}"
        with Checkpoint.open(whole / last) as one, Checkpoint.open(broken / last) as other:
            differences = (*_differences(one, other), *_other_lines(whole, broken))
            return Verified(
                steps=steps,
                checkpoint_at=checkpoint_at,
                killed_in=killed_in,
                arrays=len(one.arrays),
                differences=differences,
            )


def train_and_die(file: str, overrides: Sequence[str], step: int) -> None:
    """Train until a step's last micro-batch is asked for, and end this process as a power cut would."""
    from helix_train.progress import Progress

    config = load_config(file, overrides)
    trainer = config.kernel.build("trainer", config["trainer"], config=config)
    batches = trainer._batches  # noqa: SLF001 - the trainer's own part of this package
    fetch, asked = batches.next, 0

    def fetch_or_die() -> Any:
        nonlocal asked
        asked += trainer.step == step - 1
        if asked == trainer.options.accumulate:
            os.kill(os.getpid(), signal.SIGKILL)
        return fetch()

    batches.next = fetch_or_die
    trainer.fit(Progress())


def _run(file: str, overrides: Sequence[str], *, die_in: int = 0) -> None:
    """Train in a process of its own.

    Raises:
        HelixError: It failed, or did not die where it was to.
    """
    dying = f"import sys; from {__name__} import train_and_die as t; t(sys.argv[1], sys.argv[2:], {die_in})"
    program = ["-c", dying] if die_in else ["-m", "helix_kernel.cli", "train"]
    done = subprocess.run(  # noqa: S603 - this Python, with what the user typed
        [sys.executable, *program, file, *overrides], capture_output=True, text=True, check=False
    )
    expected = -signal.SIGKILL if die_in else 0
    if done.returncode != expected:
        last = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        raise HelixError(f"--verify-resume: a run ended with exit code {done.returncode}:\n  {last}")


def _differences(one: Checkpoint, other: Checkpoint) -> Iterator[str]:
    names = one.arrays.keys() | other.arrays.keys()
    for name in sorted(names):
        if name not in one.arrays or name not in other.arrays:
            yield f"array {name}: only in the {'one' if name in one.arrays else 'resumed'} run"
        elif one.digest(name) != other.digest(name):
            yield f"array {name} differs"
    if _values(one) != _values(other):
        yield "values beside the arrays differ"


def _values(checkpoint: Checkpoint) -> str:
    return json.dumps(checkpoint.manifest.state, sort_keys=True, default=str)


def _other_lines(whole: Path, broken: Path) -> Iterator[str]:
    files = [(path / "metrics.jsonl").read_text(encoding="utf-8").splitlines() for path in (whole, broken)]
    if files[0] != files[1]:
        pairs = (f"{one} / {other}" for one, other in zip(*files, strict=False) if one != other)
        yield f"metrics differ: {next(pairs, 'one file has more lines')}"
