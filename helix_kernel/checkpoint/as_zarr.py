"""Opening a checkpoint with zarr-python."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.checkpoint.reader import Checkpoint

if TYPE_CHECKING:
    from zarr.abc.store import Store

    from helix_kernel.checkpoint.location import Address


def zarr_store(path: Address) -> Store:
    """Return a checkpoint as a read-only store for ``zarr.open``; teaches zarr bfloat16 and float8.

    zarr itself checks arrays of up to 4 MiB by their CRC-32C and larger ones not at all: see
    `Checkpoint.verify`.

    Args:
        path: The checkpoint's directory, or its place in an object store.

    Raises:
        CheckpointError: There is no checkpoint, or its manifest is damaged.
    """
    from helix_kernel.checkpoint.checkpoint_store import CheckpointStore

    return CheckpointStore(Checkpoint.open(path))
