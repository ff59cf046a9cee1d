"""Writes of a trial that a scheduler ended that it did: its process is gone before it can say so itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from helix_kernel.checkpoint.durable import replace_file

if TYPE_CHECKING:
    from pathlib import Path

_RUNNING, _ENDED = "running", "interrupted"


def tell_stopped(out: Path) -> None:
    """Write into ``run.json`` of a run's directory that the run was interrupted, where it says that it runs.

    A file that is missing, or that somebody else wrote, is left as it is.
    """
    path = out / "run.json"
    try:
        document = json.loads(path.read_bytes())
        if document["status"] != _RUNNING:
            return
    except (OSError, ValueError, KeyError, TypeError):
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    told = {**document, "status": _ENDED, "updated_at": now, "ended_at": now}
    replace_file(path, json.dumps(told, indent=1).encode())
