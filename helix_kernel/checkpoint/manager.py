"""The checkpoints of one run: which steps there are, which is good, which may go."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint.durable import remove_directory, sweep
from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.checkpoint.reader import Checkpoint, load
from helix_kernel.checkpoint.writer import save
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

_STEP = re.compile(r"step-(\d{8,})")
_log = logging.getLogger(__name__)


class CheckpointManager:
    """Keeps the newest checkpoints of a run, as ``step-00000100`` and so on in one directory.

    One process may write at a time; any number may read.

    Args:
        directory: Where the steps lie; made by the first `save`.
        keep: How many steps stay, at least 1; None keeps all.

    Raises:
        ArgumentError: `keep` is below 1.
    """

    def __init__(self, directory: str | Path, *, keep: int | None = 3) -> None:
        if keep is not None and keep < 1:
            raise ArgumentError(f"keep is {keep}; allowed is at least 1, or None to keep every step")
        self.directory = Path(directory)
        self.keep = keep

    def save(
        self, step: int, state: Mapping[str | int, Any], *, attributes: Mapping[str, Any] | None = None
    ) -> Path:
        """Save a step, then remove those that need not stay; see `save` for arguments and errors.

        A step of that number that is damaged is replaced; a good one is an error. Older steps go
        only when the new one is on the disk, and the new one always stays.
        """
        path = self.path(step)
        sweep(self.directory)
        if path.exists():
            if _damage(path) is None:
                raise CheckpointError(f"{path} exists and is good; a checkpoint is never written over")
            remove_directory(path)
        save(path, state, attributes=attributes)
        self._retain(step)
        return path

    def path(self, step: int) -> Path:
        """Return the directory of a step, whether it exists or not."""
        if step < 0:
            raise ArgumentError(f"step is {step}; allowed is at least 0")
        return self.directory / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps that are on disk, ascending; none where the directory is missing."""
        if not self.directory.is_dir():
            return []
        matches = (_STEP.fullmatch(entry.name) for entry in self.directory.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def latest(self) -> int | None:
        """Return the newest step that is complete and verifies; None where there is none.

        What is passed over is logged as a warning.
        """
        for step in reversed(self.steps()):
            damage = _damage(self.path(step))
            if damage is None:
                return step
            _log.warning("passed over step %d: %s", step, damage)
        return None

    def load(self, step: int | None = None, *, as_torch: bool = False) -> dict[str | int, Any]:
        """Return the state of a step, or of the newest good one.

        Raises:
            CheckpointError: There is no such step, no good step, or the step is damaged.
        """
        if step is None:
            return load(resolve(self.directory), as_torch=as_torch)
        if step not in self.steps():
            raise CheckpointError(f"{self.directory} has no step {step}; it has {self.steps() or 'none'}")
        return load(self.path(step), as_torch=as_torch)

    def _retain(self, saved: int) -> None:
        if self.keep is None:
            return
        others = [step for step in self.steps() if step != saved]
        for step in others[: max(0, len(others) - (self.keep - 1))]:
            remove_directory(self.path(step))


def resolve(path: str | Path) -> Path:
    """Return the checkpoint that a path means, verified.

    Args:
        path: A checkpoint; or a run's directory, with steps in it or in its ``checkpoints``, which
            means the newest step that verifies.

    Raises:
        CheckpointError: Nothing is there, or nothing good; names the damaged file and its array.
    """
    given = Path(path)
    if (given / MANIFEST).exists() or _STEP.fullmatch(given.name):
        Checkpoint.open(given).verify()
        return given
    managers = [CheckpointManager(given / "checkpoints"), CheckpointManager(given)]
    manager = next((manager for manager in managers if manager.steps()), None)
    if manager is None:
        kind = (
            "holds no checkpoint" if given.is_dir() else "is a file" if given.exists() else "does not exist"
        )
        raise CheckpointError(f"{given} {kind}; allowed are a checkpoint's directory and a run's directory")
    latest = manager.latest()
    if latest is None:
        newest = manager.path(manager.steps()[-1])
        raise CheckpointError(f"{given} has no good checkpoint; the newest: {_damage(newest)}")
    return manager.path(latest)


def _damage(path: Path) -> CheckpointError | None:
    """Return what is wrong with a checkpoint, or None."""
    try:
        Checkpoint.open(path).verify()
    except CheckpointError as error:
        return error
    return None
