"""Which checkpoint a command's argument means."""

from __future__ import annotations

from helix_kernel.checkpoint import Checkpoint, resolve, steps_at
from helix_kernel.checkpoint.location import locate


def open_checkpoint(path: str) -> Checkpoint:
    """Open the checkpoint at a path, of which no array is read yet; or a run's newest that verifies.

    Raises:
        CheckpointError: Nothing is there, or nothing good.
    """
    return Checkpoint.open(path if is_checkpoint(path) else resolve(path))


def is_checkpoint(path: str) -> bool:
    """Whether a path means one checkpoint rather than those of a run.

    Raises:
        CheckpointError: Nothing is there.
    """
    return steps_at(path) == [locate(path).place]
