"""What runs on the cluster: one worker of a run, or one trial of a sweep."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kernel.config import resolve_document
from helix_kernel.errors import HelixError, LockError
from helix_kernel.lock_differences import serving_differences
from helix_kernel.lock_record import Record
from helix_ray.ending import heeding, request_in
from helix_ray.lines import Lines

if TYPE_CHECKING:
    from helix_kernel.config import Config

_BY_SIGNAL = 128
"""An exit code is this and the number of the signal where one ended a process."""


def train_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Train as one worker of a run; Ray has made the process group.

    Where the run's directory holds checkpoints, the run goes on from the newest: so a group that Ray starts
    again loses nothing of what was saved.

    Args:
        job: ``config``, the frozen table; ``folder``, in which its relative paths begin; and ``record``, of
            what is to serve it, or None.

    Returns:
        What the run came to, or ``ended`` and ``exit_code`` where it was asked to end; Ray keeps that of
        rank 0.

    Raises:
        LockError: Something else serves it here.
    """
    os.chdir(job["folder"])
    table = job["config"]
    out = Path(table["trainer"]["out"])
    if has_checkpoints(out):
        table = {**table, "trainer": {**table["trainer"], "resume": "auto"}}
    config = resolve_document(table)
    if job["record"] is not None:
        require_served_alike(config, Record.from_dict(job["record"]))
    trainer = _trainer(config)
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
        _trainer(resolve_document(table)).fit(Lines(stream, every=0.0))


def has_checkpoints(out: Path) -> bool:
    """Return whether a run's directory holds a checkpoint."""
    from helix_kernel.checkpoint import CheckpointManager

    return bool(CheckpointManager(out / "checkpoints").steps())


def require_served_alike(config: Config, record: Record) -> None:
    """Raise `LockError` where what serves a config here is not what a record says."""
    found = serving_differences(record, config.record)
    if found:
        here = f"on {socket.gethostname()}, something else serves the run than where it was begun:"
        raise LockError("\n  ".join([here, *map(str, found)]))


def _trainer(config: Config) -> Any:
    return config.kernel.build("trainer", config["trainer"], config=config)


def _told(result: Any) -> dict[str, Any]:
    return {
        "step": result.step,
        **(dict(result.evaluation.values()) if result.evaluation else {}),
        "checkpoint": str(result.checkpoint),
        "metrics": str(result.metrics),
    }
