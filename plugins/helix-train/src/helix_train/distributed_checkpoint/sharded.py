"""Saving and loading a sharded state by one call on every rank."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from helix_kernel.errors import ArgumentError, CheckpointError
from helix_train.distributed_checkpoint.planners import HelixLoadPlanner, HelixSavePlanner
from helix_train.distributed_checkpoint.storage_reader import HelixStorageReader
from helix_train.distributed_checkpoint.storage_writer import HelixStorageWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch.distributed import ProcessGroup

    from helix_kernel.checkpoint.location import Address


def save_sharded(
    path: str | Path,
    state: Mapping[str | int, Any],
    *,
    attributes: Mapping[str, Any] | None = None,
    compression: str | None = None,
    process_group: ProcessGroup | None = None,
) -> None:
    """Write a checkpoint of what the ranks hold together; every rank of the group calls it.

    It exists, whole and on the disk, when this returns, and else not at all. Without a process group it
    is that of one process.

    Args:
        path: The directory to make, on a file system that all ranks share; that of rank 0 counts.
        state: See `HelixSavePlanner`; objects with ``state_dict`` stand for what that returns.
        attributes: See ``helix_kernel.checkpoint.save``; those of rank 0 count.
        compression: The same; each tensor is compressed on all ranks or on none.
        process_group: The ranks; all if left out.

    Raises:
        ArgumentError: A key or value cannot be stored, values differ between ranks, or `path` is that of
            an object store.
        CheckpointError: `path` exists, the system refuses a write, or a rank was lost. The error of the
            first rank that has one is raised on all.
    """
    writer = HelixStorageWriter(path, attributes=attributes)
    try:
        with _as_own_errors(f"cannot write checkpoint {path}"):
            save(
                dict(state),
                storage_writer=writer,
                planner=HelixSavePlanner(compression=compression),
                process_group=process_group,
            )
    finally:
        writer.abandon()


def load_sharded(
    path: Address,
    state: dict[Any, Any],
    *,
    process_group: ProcessGroup | None = None,
    verify: bool = True,
) -> None:
    """Read a checkpoint into the shards of a state that exists; every rank of the group calls it.

    Args:
        path: The checkpoint's directory or its place in an object store, however it was written.
        state: See `HelixLoadPlanner`; objects with ``state_dict`` are given what was read by
            ``load_state_dict``.
        process_group: The ranks; all if left out.
        verify: Check everything that is read against its digest. Tensors hold nothing of use after
            an error.

    Raises:
        ArgumentError: The state holds a tensor of a kind that cannot be filled.
        CheckpointError: There is no checkpoint, it is damaged, or a rank was lost.
        IncompatibleCheckpointError: It lacks something that the state asks for, or has it in another
            shape or type; nothing was changed then.
    """
    with _as_own_errors(f"cannot read checkpoint {path}"):
        load(
            state,
            storage_reader=HelixStorageReader(path, verify=verify),
            planner=HelixLoadPlanner(),
            process_group=process_group,
        )


@contextmanager
def _as_own_errors(failed: str) -> Iterator[None]:
    """Raise what torch raises, with every rank's traceback in its text, as one error of one rank."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
            yield
    except CheckpointException as error:
        rank, (cause, _) = min(error.failures.items(), key=lambda failure: failure[0])
        where = f"rank {rank}: " if distributed.is_initialized() else ""
        if isinstance(cause, CheckpointError | ArgumentError):
            raise type(cause)(f"{where}{cause}") from cause
        raise CheckpointError(f"{where}{failed}: {type(cause).__name__}: {cause}") from cause
    except RuntimeError as error:  # of a collective, when the other side is gone or does not answer
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{failed}: a rank was lost or does not answer ({reason})") from error
