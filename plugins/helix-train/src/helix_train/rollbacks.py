"""Remembers on disk that a run went back to a checkpoint, until the next one says so itself.

A run that is killed between the two goes on with the other data and random numbers that it took up.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from helix_kernel.checkpoint.durable import replace_file
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_FILE = "rollback.json"


def remember_rollback(out: Path, *, step: int, reseeds: int) -> None:
    """Write down a rollback, so that a loss of power does not undo it.

    Args:
        out: The run's directory.
        step: That of the checkpoint that it went back to.
        reseeds: How often it has taken up other data so far.
    """
    replace_file(out / _FILE, json.dumps({"step": step, "reseeds": reseeds}).encode())


def remembered_reseeds(out: Path, *, step: int) -> int:
    """Return how often the run has taken up other data, if it last went back to this step; else 0.

    What is remembered of another step than the run begins at counts no more, and is forgotten.

    Raises:
        DataError: The file is damaged.
    """
    path = out / _FILE
    try:
        kept = json.loads(path.read_bytes())
        if kept["step"] == step:
            return int(kept["reseeds"])
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged; remove it, and the run goes on as it did before it rolled back"
        ) from error
    path.unlink()
    return 0
