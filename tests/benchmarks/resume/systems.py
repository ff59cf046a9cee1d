"""The trainers that are compared: how each runs a job, and whether it can here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

import attrs
import with_helix
from comparing import journal

if TYPE_CHECKING:
    from resume_task import Job

HERE = Path(__file__).parent


@attrs.frozen(kw_only=True)
class System:
    """A way of using a trainer.

    Args:
        name: What the tables call it.
        module: What must be importable; empty for Helix itself.
        script: Program that runs jobs.
        variant: Which way of using it.
        written: What its user writes to resume.
    """

    name: str
    module: str = ""
    script: str
    variant: str = ""
    written: str = ""


HELIX = System(
    name="helix",
    script="with_helix.py",
    written='`resume = "auto"` and `callbacks = [{ use = "ema" }]` in the config; a dataset whose `batch` is '
    "told which batch is wanted",
)
PEERS = (
    System(
        name="Lightning",
        module="lightning",
        script="with_lightning.py",
        written="`ckpt_path`, `ModelCheckpoint`, `EMAWeightAveraging`",
    ),
    System(
        name="Lightning, StatefulDataLoader",
        module="lightning",
        script="with_lightning.py",
        variant="stateful",
        written="the same, and torchdata's loader",
    ),
    System(
        name="Lightning, StatefulDataLoader, own code",
        module="lightning",
        script="with_lightning.py",
        variant="own",
        written="the same, and about 30 lines: a dataset with `state_dict`, as torchdata documents it, and a "
        "callback that keeps the training process's generators",
    ),
    System(
        name="HF Trainer",
        module="accelerate",
        script="with_hf.py",
        written="`resume_from_checkpoint`, and about 15 lines: a callback that saves and loads the EMA",
    ),
)
IGNORING = System(
    name="HF Trainer, ignore_data_skip",
    module="accelerate",
    script="with_hf.py",
    variant="ignore-data-skip",
)
"""Documented as another order of data, so only its cost is measured."""


class FailedRunError(RuntimeError):
    """A run did not end as it was to.

    Args:
        name: Of the trainer.
        log: What the run said.
    """

    def __init__(self, name: str, log: str) -> None:
        super().__init__(f"{name}: {log}")
        errors = (line for line in log.splitlines() if "Error: " in line)
        self.reason = next(errors, "unknown").strip()


class Runner:
    """Runs jobs, each in a process of its own, forked from one for each trainer.

    Args:
        python: The interpreter that has the peers.
        folder: Where the plugin of this benchmark was installed by `with_helix.install_plugin`.
    """

    def __init__(self, python: str, folder: Path) -> None:
        self.folder = folder
        self._python = python
        self._servers: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.communicate()

    def available(self, system: System) -> bool:
        """Return whether a system can be run."""
        if not system.module:
            return True
        check = [self._python, "-c", f"import {system.module}, torchdata.stateful_dataloader"]
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    def run(self, system: System, job: Job) -> None:
        """Run a job to its end, or until it is killed as it was told to.

        Raises:
            FailedRunError: It ended in another way; the message holds what it said.
        """
        Path(job.out).mkdir(parents=True, exist_ok=True)
        for leftover in (job.journal, job.journal.with_suffix(".rows")):
            leftover.unlink(missing_ok=True)
        code = self._ask(system, json.dumps(attrs.asdict(job)))
        if code != str(-signal.SIGKILL if job.kill_at else 0):
            raise FailedRunError(
                system.name, job.log.read_text() if job.log.exists() else f"exit code {code}"
            )

    def resume_copy(self, system: System, killed: Job, job: Job) -> None:
        """Go on with a copy of what a killed run left; the run itself may be gone on with again."""
        shutil.copytree(killed.out, job.out)
        self.run(system, job)

    def _ask(self, system: System, line: str) -> str:
        server = self._servers.get(system.script) or self._start(system)
        assert server.stdin
        assert server.stdout
        server.stdin.write(line + "\n")
        server.stdin.flush()
        return server.stdout.readline().strip()

    def _start(self, system: System) -> subprocess.Popen[str]:
        search = os.pathsep.join([str(self.folder), str(HERE)])
        server = subprocess.Popen(
            [self._python if system.module else sys.executable, str(HERE / system.script)],
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers[system.script] = server
        return server


def losses_after(system: System, job: Job, micro_batches: int, steps: int) -> list[str]:
    """Return the losses that a run had after so many micro-batches, which are so many steps.

    Helix's are of steps, from metrics.jsonl; those of the peers of micro-batches.
    """
    if not system.module:
        return with_helix.losses(job)[steps:]
    return journal(job, "loss")[0 if job.resume else micro_batches :]
