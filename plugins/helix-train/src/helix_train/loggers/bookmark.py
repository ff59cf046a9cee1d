"""What a run is called in a system that keeps its metrics elsewhere, and the last step that it has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@attrs.frozen
class Bookmark:
    """Where a run was left.

    Such systems take nothing back. A run that resumes logs nothing up to this step again, since a resume is
    exact: the same values are there.

    Args:
        run_id: The system's own name of the run.
        step: The last step that was logged; -1 for none.
    """

    run_id: str
    step: int = -1


def read_bookmark(path: Path) -> Bookmark | None:
    """Return what was kept in a file, or None where there is none.

    Raises:
        DataError: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Bookmark(str(kept["run_id"]), int(kept["step"]))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is damaged; remove it, and the metrics that follow make a new run there"
        ) from error


def write_bookmark(path: Path, bookmark: Bookmark) -> None:
    """Keep it, whole at every moment."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(attrs.asdict(bookmark)) + "\n", encoding="utf-8")
    temporary.replace(path)
