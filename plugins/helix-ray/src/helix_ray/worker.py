"""What runs on the cluster: one worker of a run, or one trial of a sweep."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from helix_kernel.config import resolve_document
from helix_kernel.errors import HelixError
from helix_ray.ending import heeding, request_in
from helix_ray.lines import Lines

_BY_SIGNAL = 128
"""An exit code is this and the number of the signal where one ended a process."""


def train_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Train as one worker of a run; Ray has made the process group.

    Where the run's directory holds checkpoints, the run goes on from the newest: so a group that Ray starts
    again loses nothing of what was saved.

    Args:
        job: ``config``, the frozen table, and ``folder``, in which its relative paths begin.

    Returns:
        What the run came to, or ``ended`` and ``exit_code`` where it was asked to end; Ray keeps that of
        rank 0.
    """
    os.chdir(job["folder"])
    table = job["config"]
    out = Path(table["trainer"]["out"])
    if has_checkpoints(out):
        table = {**table, "trainer": {**table["trainer"], "resume": "auto"}}
    trainer = _trainer(table)
    with heeding(request_in(out), trainer.interrupt) as asked:
        try:
            return _told(trainer.fit(Lines(sys.stderr)))
        except HelixError as error:
            # A worker that raised would be one that failed, and be started again.
            if not asked.is_set() or error.exit_code <= _BY_SIGNAL:
                raise
            return {"ended": "\n".join([str(error), *error.__notes__]), "exit_code": error.exit_code}


def run_trial(parameters: dict[str, Any], job: dict[str, Any]) -> None:
    """Train one trial of a sweep, in one process.

    Args:
        parameters: ``trial``, its number.
        job: ``configs``, the frozen table of each trial, and ``folder``, as for `train_worker`.
    """
    os.chdir(job["folder"])
    table = job["configs"][parameters["trial"]]
    out = Path(table["trainer"]["out"])
    out.mkdir(parents=True, exist_ok=True)
    with (out / "progress.txt").open("a", encoding="utf-8") as stream:
        _trainer(table).fit(Lines(stream, every=0.0))


def has_checkpoints(out: Path) -> bool:
    """Return whether a run's directory holds a checkpoint."""
    from helix_kernel.checkpoint import CheckpointManager

    return bool(CheckpointManager(out / "checkpoints").steps())


def _trainer(table: dict[str, Any]) -> Any:
    config = resolve_document(table)
    return config.kernel.build("trainer", config["trainer"], config=config)


def _told(result: Any) -> dict[str, Any]:
    return {
        "step": result.step,
        **(dict(result.evaluation.values()) if result.evaluation else {}),
        "checkpoint": str(result.checkpoint),
        "metrics": str(result.metrics),
    }
