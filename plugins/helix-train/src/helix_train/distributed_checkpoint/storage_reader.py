"""Reads any checkpoint of Helix into the shards that each rank holds: just the bytes that it needs."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.storage import StorageReader
from torch.futures import Future

from helix_kernel.checkpoint import ArrayInfo, Checkpoint
from helix_kernel.checkpoint.arrays import describe, fill, plain_view
from helix_kernel.errors import CheckpointError
from helix_train.distributed_checkpoint.planners import SavedState
from helix_train.distributed_checkpoint.state_tree import named

if TYPE_CHECKING:
    from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner

    from helix_kernel.checkpoint import LazyArray
    from helix_kernel.checkpoint.location import Address


class HelixStorageReader(StorageReader):
    """Reads with ``torch.distributed.checkpoint.load``, together with a `HelixLoadPlanner`.

    The checkpoint may have been written by any number of ranks, or by one process.

    Args:
        path: The checkpoint's directory, or its place in an object store.
        verify: Check everything that is read against its digest.
    """

    def __init__(self, path: Address, *, verify: bool = True) -> None:
        self.path = path
        self._verify = verify
        self._opened: Checkpoint | CheckpointError | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin anew, at another path if one is given."""
        if checkpoint_id is not None:
            self.path = os.fspath(checkpoint_id)

    def read_metadata(self) -> Metadata:
        """Return what the checkpoint holds; see `StorageReader`.

        Each array counts as one chunk, since any region of it can be read. Where there is no good
        checkpoint, nothing is returned: torch would bury an error here, so that
        `set_up_storage_reader` raises it.
        """
        try:
            checkpoint = self._opened = Checkpoint.open(self.path)
            nodes = dict(named(checkpoint.tree()))
        except CheckpointError as error:
            self._opened = error
            return Metadata({}, planner_data=SavedState(str(self.path), {}))
        arrays = {name: _metadata(node) for name, node in nodes.items() if isinstance(node, ArrayInfo)}
        return Metadata(dict(arrays), planner_data=SavedState(checkpoint.source, nodes))

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool) -> None:  # noqa: ARG002, FBT001 - torch's protocol
        """Keep what is needed to read; see `StorageReader`.

        Raises:
            CheckpointError: There is no checkpoint, or its manifest is damaged.
            IncompatibleCheckpointError: It is of a later version of the format.
        """
        if isinstance(self._opened, CheckpointError):
            raise self._opened
        self._nodes = metadata.planner_data.nodes

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Return the plan as it is; see `StorageReader`."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Return the plans as they are; see `StorageReader`."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fill this rank's tensors; see `StorageReader`.

        Raises:
            CheckpointError: The checkpoint is damaged; names the array.
        """
        assert isinstance(self._opened, Checkpoint)
        with self._opened as checkpoint:
            for item in plan.items:
                array = checkpoint[self._nodes[item.storage_index.fqn].name]
                target = planner.resolve_tensor(item)
                self._read(array, tuple(item.storage_offsets), target.detach())
                planner.commit_tensor(item, target)
        done: Future[None] = Future()
        done.set_result(None)
        return done

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:  # noqa: ARG003 - torch's protocol
        """Whether it may be a checkpoint's address, as any path or URL may; see `StorageReader`."""
        return True

    def _read(self, array: LazyArray, origin: tuple[int, ...], target: torch.Tensor) -> None:
        shape, dtype = describe(target, array.name)
        view = plain_view(target, dtype) if dtype == array.dtype else None
        out = np.empty(shape, array.dtype) if view is None else view
        array.read_into(out, origin, verify=self._verify)
        if view is None:
            fill(target, out)


def _metadata(info: ArrayInfo) -> TensorStorageMetadata:
    whole = ChunkStorageMetadata(torch.Size([0] * len(info.shape)), torch.Size(info.shape))
    properties = TensorProperties(dtype=getattr(torch, info.dtype))
    return TensorStorageMetadata(properties, torch.Size(info.shape), [whole] if math.prod(info.shape) else [])
