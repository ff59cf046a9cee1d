"""Writes a checkpoint by several ranks: each its own pack, and rank 0 the manifest when all are written."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.storage import StorageWriter, WriteResult
from torch.futures import Future

from helix_kernel.checkpoint.arrays import describe
from helix_kernel.checkpoint.dtypes import DTYPES
from helix_kernel.checkpoint.durable import new_directory, sweep, write_file
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.location import locate
from helix_kernel.checkpoint.manifest import MANIFEST, Manifest, StoredArray
from helix_kernel.checkpoint.parts import Part
from helix_kernel.checkpoint.writer import Content, pack_name
from helix_kernel.errors import ArgumentError, CheckpointError
from helix_train.distributed_checkpoint.grid import cells, grid_of
from helix_train.distributed_checkpoint.pack_of_rank import NamedPart, Written, write_pack
from helix_train.distributed_checkpoint.planners import Compressed, TreeOfRank

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata
    from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem

    from helix_kernel.checkpoint.location import Address
    from helix_train.distributed_checkpoint.state_tree import Described, Leaf


class HelixStorageWriter(StorageWriter):
    """Writes with ``torch.distributed.checkpoint.save``, together with a `HelixSavePlanner`.

    The checkpoint becomes visible by one rename, when every rank's shards and the manifest have reached
    the disk. After a failure rank 0 removes what was written, at the latest when the writer is freed.

    Args:
        path: The directory to make, on a file system that all ranks share; that of rank 0 counts.
        attributes: See ``helix_kernel.checkpoint.save``; those of rank 0 count.

    Raises:
        ArgumentError: The path is that of an object store.
    """

    def __init__(self, path: Address, *, attributes: Mapping[str, Any] | None = None) -> None:
        self.path = _directory(path)
        self._attributes = attributes
        self._described: Any = None
        self._directory = ExitStack()
        self._temporary = self.path
        self._grids: dict[str, tuple[int, ...]] = {}
        self._compressed = Compressed(None, frozenset())

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begin anew, at another path if one is given."""
        self.abandon()
        if checkpoint_id is not None:
            self.path = _directory(Path(checkpoint_id))

    def abandon(self) -> None:
        """Remove what was written of a checkpoint that was not finished; only rank 0 has any."""
        with suppress(_AbandonedError), self._directory:
            raise _AbandonedError

    def set_up_storage_writer(self, is_coordinator: bool) -> None:  # noqa: FBT001 - torch's protocol
        """Take the attributes of rank 0; see `StorageWriter`.

        Raises:
            ArgumentError: An attribute cannot be stored.
        """
        if is_coordinator:
            self._described = Content.of({}, self._attributes).attributes

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Return the plan as it is; see `StorageWriter`.

        Raises:
            ArgumentError: It comes from another planner, which would pickle.
        """
        if not isinstance(plan.planner_data, TreeOfRank):
            raise ArgumentError("HelixStorageWriter writes the plans of a HelixSavePlanner: give planner=")
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Make the directory, and tell each rank its pack and how tensors are cut; see `StorageWriter`.

        Raises:
            ArgumentError: The ranks do not hold a tensor whole, or cut it too unevenly.
            CheckpointError: The path exists, or the directory cannot be made.
        """
        self._grids = {name: grid_of(name, size, pieces) for name, size, pieces in _pieces_of_tensors(plans)}
        self._compressed = plans[0].planner_data
        sweep(self.path.parent, self.path.name)
        self._temporary = self._directory.enter_context(new_directory(self.path)).absolute()
        return [
            replace(
                plan, storage_data=_Task(self._temporary / pack_name(rank), self._grids, self._compressed)
            )
            for rank, plan in enumerate(plans)
        ]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Write this rank's pack; see `StorageWriter`.

        Raises:
            CheckpointError: The system refuses.
        """
        task: _Task = plan.storage_data
        parts = [part for item in plan.items for part in _parts(item, planner, task)]
        try:
            written = write_pack(task.pack, parts)
        except OSError as error:
            reason = error.strerror or error
            if isinstance(error, FileNotFoundError):
                reason = "the path must lie on a file system that all ranks share"
            raise CheckpointError(
                f"cannot write {task.pack.name} of checkpoint {self.path}: {reason}"
            ) from error
        done: Future[list[WriteResult]] = Future()
        done.set_result([WriteResult(MetadataIndex(written.pack), written.nbytes, written)])
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Write the manifest and let the checkpoint be seen; see `StorageWriter`."""
        whole: Described = metadata.planner_data
        written: list[Written] = [result.storage_data for of_rank in results for result in of_rank]
        extents = {key: extent for of_rank in written for key, extent in of_rank.extents.items()}

        def stored(leaf: Leaf) -> StoredArray:
            name = leaf.stored or leaf.name
            whole_layout = Layout.of(leaf.shape, DTYPES[leaf.dtype], self._grids.get(name))
            layout = whole_layout.compressed(self._compressed.of(name))
            return StoredArray(layout, tuple(extents[name, shard.key] for shard in layout.shards))

        manifest = Manifest(
            arrays={path: stored(leaf) for path, leaf in whole.leaves.items()},
            packs={of_rank.pack: of_rank.nbytes for of_rank in written if of_rank.nbytes},
            state=whole.document,
            ties=whole.ties,
            attributes=self._described,
        )
        with self._directory:
            write_file(self._temporary / MANIFEST, manifest.to_bytes())

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path of a local file system, not a URL; see `StorageWriter`."""
        return "://" not in str(checkpoint_id)


def _directory(path: Address) -> Path:
    place = locate(path).place
    if not isinstance(place, Path):
        raise ArgumentError(
            f"path is {place}; several ranks can write to a directory only: save there, and load it from "
            "wherever it is copied to"
        )
    return place


class _AbandonedError(Exception):
    """Makes the temporary directory go."""


@attrs.frozen
class _Task:
    """What rank 0 tells each rank.

    Args:
        pack: The pack that it is to write.
        grids: Name of a tensor → shape of the cells that it is stored in.
        compressed: Which tensors are compressed.
    """

    pack: Path
    grids: dict[str, tuple[int, ...]]
    compressed: Compressed


def _pieces_of_tensors(
    plans: list[SavePlan],
) -> Iterator[tuple[str, tuple[int, ...], list[ChunkStorageMetadata]]]:
    """Yield name, shape and pieces of each tensor that has elements."""
    sizes: dict[str, tuple[int, ...]] = {}
    pieces: dict[str, list[ChunkStorageMetadata]] = {}
    for item in (item for plan in plans for item in plan.items):
        assert item.tensor_data is not None
        sizes[item.index.fqn] = tuple(item.tensor_data.size)
        pieces.setdefault(item.index.fqn, []).append(item.tensor_data.chunk)
    yield from ((name, size, pieces[name]) for name, size in sizes.items())


def _parts(item: WriteItem, planner: SavePlanner, task: _Task) -> Iterator[NamedPart]:
    """Yield the shards that one rank's piece of a tensor consists of."""
    assert item.tensor_data is not None
    piece, name = item.tensor_data.chunk, item.index.fqn
    tensor = planner.resolve_data(item)
    assert isinstance(tensor, torch.Tensor)
    _, dtype = describe(tensor, name)
    whole = Layout.of(item.tensor_data.size, dtype, task.grids[name])
    layout = whole.compressed(task.compressed.of(name))
    for shard in cells(layout, piece):
        starts = [low - first for low, first in zip(shard.origin, piece.offsets, strict=True)]
        index = tuple(slice(low, low + n) for low, n in zip(starts, shard.shape, strict=True))
        yield NamedPart(name, Part(layout, shard, tensor.detach()[index]))
