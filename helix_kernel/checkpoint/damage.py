"""All that is wrong with a checkpoint, not only the first thing that is met."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.checkpoint.blocks import blocks
from helix_kernel.checkpoint.reader import Checkpoint
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from helix_kernel.checkpoint.location import Address


def damage(path: Address) -> list[str]:
    """Read every byte of a checkpoint, and return a message for each array that is damaged.

    Args:
        path: The checkpoint. Where it cannot be opened, or what is damaged is no array, that is said alone.
    """
    try:
        with Checkpoint.open(path) as checkpoint:
            try:
                checkpoint.verify()
            except CheckpointError as first:
                found = [message for name in checkpoint.arrays if (message := _of_array(checkpoint, name))]
                return found or [str(first)]
    except CheckpointError as error:
        return [str(error)]
    return []


def _of_array(checkpoint: Checkpoint, name: str) -> str:
    try:
        for _ in blocks(checkpoint, name):
            pass
    except CheckpointError as error:
        return str(error)
    return ""
