"""Planners of torch.distributed.checkpoint that leave planning to torch, and pickle nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner

from helix_kernel.checkpoint import ArrayInfo
from helix_kernel.checkpoint.arrays import describe
from helix_kernel.checkpoint.choosing import is_worthwhile, trial
from helix_kernel.checkpoint.compression import check_compression
from helix_kernel.errors import ArgumentError, IncompatibleCheckpointError, nearest
from helix_train.distributed_checkpoint.state_tree import (
    Leaf,
    TakenApart,
    described,
    merged,
    name_of,
    named,
    plain,
    take_apart,
)

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
    from torch.distributed.checkpoint.planner import LoadPlan, SavePlan, WriteItem

    from helix_kernel.checkpoint.tree import Place

_SHOWN = 5
_CONTAINERS = (Mapping, list, tuple)


@attrs.frozen
class TreeOfRank:
    """What one rank has to say of a state: goes to rank 0 with its plan.

    Args:
        tree: The state as `state_tree.plain` returns it.
        trials: Name of a tensor → how many bytes of the rank's pieces were tried to compress, and how many
            they became.
    """

    tree: Any
    trials: dict[str, tuple[int, int]] = attrs.Factory(dict)


@attrs.frozen
class Compressed:
    """Which tensors are to be compressed: goes from rank 0 to every rank with its plan.

    Args:
        compression: How; None: none is.
        names: Their names.
    """

    compression: str | None
    names: frozenset[str]

    def of(self, name: str) -> str | None:
        """Return how a tensor is compressed; None: it is not."""
        return self.compression if name in self.names else None


@attrs.frozen
class SavedState:
    """What a checkpoint holds, for the planner of a load.

    Args:
        source: The checkpoint, for errors.
        nodes: Name → value, container of values, or `ArrayInfo`.
    """

    source: str
    nodes: dict[str, Any]


class HelixSavePlanner(DefaultSavePlanner):
    """Plans a save: tensors as torch does, with each replica written once; values go into the manifest.

    The state may nest mappings, lists and tuples of tensors, DTensors, numpy arrays, None, bool, int, float
    and str. What only some ranks hold is saved too. Anything else, and values that differ between ranks,
    are an `ArgumentError` that names them.

    Args:
        compression: As for ``helix_kernel.checkpoint.save``. Each rank tries some of what it holds of a
            tensor; rank 0 decides for all.

    Raises:
        ArgumentError: There is no such compression.
    """

    def __init__(self, *, compression: str | None = None) -> None:
        check_compression(compression)
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)
        self._compression = compression

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        storage_meta: StorageMeta | None = None,
        is_coordinator: bool = False,  # noqa: FBT001, FBT002 - torch's protocol
    ) -> None:
        """Take the state apart; see `SavePlanner`."""
        apart = take_apart(state_dict)
        self._tree = TreeOfRank(plain(apart.tree))
        super().set_up_planner(apart.tensors, storage_meta, is_coordinator)

    def create_local_plan(self) -> SavePlan:
        """Return what this rank holds; see `SavePlanner`."""
        plan = super().create_local_plan()
        items = [item for item in plan.items if item.tensor_data and math.prod(item.tensor_data.chunk.sizes)]
        data = attrs.evolve(self._tree, trials=self._trials(items) if self._compression else {})
        self.plan = replace(plan, items=items, planner_data=data)
        return self.plan

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        """Return who writes what, and as its ``planner_data`` the whole state; see `SavePlanner`."""
        whole = described(merged([plan.planner_data.tree for plan in all_plans]))
        stored = {leaf.stored for leaf in whole.leaves.values()}
        compressed = Compressed(self._compression, _worthwhile([plan.planner_data for plan in all_plans]))
        plans = [
            replace(
                plan, items=[item for item in plan.items if item.index.fqn in stored], planner_data=compressed
            )
            for plan in all_plans
        ]
        plans, metadata = super().create_global_plan(plans)
        return plans, replace(metadata, planner_data=whole)

    def _trials(self, items: list[WriteItem]) -> dict[str, tuple[int, int]]:
        trials: dict[str, tuple[int, int]] = {}
        for item in items:
            name, tensor = item.index.fqn, self.resolve_data(item)
            tried, became = trial(tensor, describe(tensor, name)[1])
            before = trials.get(name, (0, 0))
            trials[name] = (before[0] + tried, before[1] + became)
        return trials


def _worthwhile(ranks: list[TreeOfRank]) -> frozenset[str]:
    """Return the tensors of which all ranks together found that they are worth compressing."""
    names = {name for rank in ranks for name in rank.trials}
    sums = {name: zip(*(rank.trials.get(name, (0, 0)) for rank in ranks), strict=True) for name in names}
    return frozenset(name for name, columns in sums.items() if is_worthwhile(*map(sum, columns)))


class HelixLoadPlanner(DefaultLoadPlanner):
    """Plans a load into a state that exists: tensors are filled, other values replaced by the saved ones.

    What the state does not ask for is not read. Names count, not nesting: ``{"a": {"b": …}}`` is filled
    from what was saved as ``{"a.b": …}``. Part of a state that holds no tensor is replaced as a whole.
    """

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self,
        state_dict: dict[str, Any],
        metadata: Metadata | None = None,
        is_coordinator: bool = False,  # noqa: FBT001, FBT002 - torch's protocol
    ) -> None:
        """Take the state apart; see `LoadPlanner`."""
        self._whole = state_dict
        self._apart: TakenApart = take_apart(state_dict)
        super().set_up_planner(self._apart.tensors, metadata, is_coordinator)

    def create_local_plan(self) -> LoadPlan:
        """Return what this rank needs; see `LoadPlanner`.

        Raises:
            ArgumentError: It is not a `HelixStorageReader` that reads.
            IncompatibleCheckpointError: The state asks for what the checkpoint lacks, or has in another
                shape or type. Nothing was changed then.
        """
        saved = self.metadata and self.metadata.planner_data
        if not isinstance(saved, SavedState):
            raise ArgumentError("HelixLoadPlanner plans for a HelixStorageReader: give storage_reader=")
        self._values = _Values(saved)
        self._values.take(self._whole, ())
        self._values.refuse_misfits(self._apart.leaves)
        return super().create_local_plan()

    def finish_plan(self, new_plan: LoadPlan) -> LoadPlan:
        """Put the values that are no tensors in their places; see `LoadPlanner`."""
        for container, key, value in self._values.found:
            container[key] = value
        return super().finish_plan(new_plan)


class _Values:
    """Finds the saved value for each value of a state.

    Attributes:
        found: Container, key, and the value that belongs there.
    """

    def __init__(self, saved: SavedState) -> None:
        self.found: list[tuple[Any, Any, Any]] = []
        self._saved = saved
        self._misfits: list[str] = []

    def take(self, container: Any, place: Place) -> None:
        """Find the values for everything in a mapping, list or tuple."""
        items = container.items() if isinstance(container, Mapping) else enumerate(container)
        for key, value in items:
            if not isinstance(value, torch.Tensor | np.ndarray):
                self._take_value(container, key, value, (*place, key))

    def refuse_misfits(self, leaves: Mapping[str, Leaf]) -> None:
        """Raise the error of `HelixLoadPlanner.create_local_plan`, if there is one."""
        lines = [*self._misfits, *(line for leaf in leaves.values() for line in self._misfit(leaf))]
        if lines:
            more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
            head = f"{self._saved.source} does not fit the state that it is to be read into:"
            raise IncompatibleCheckpointError("\n  ".join([head, *lines[:_SHOWN], *more]))

    def _take_value(self, container: Any, key: Any, value: Any, place: Place) -> None:
        name = name_of(place)
        saved = self._saved.nodes.get(name)
        within = isinstance(saved, _CONTAINERS) and _holds_arrays(saved)
        if isinstance(value, _CONTAINERS) and (within or _holds_arrays(value)):
            self.take(value, place)
        elif name not in self._saved.nodes:
            self._misfits.append(self._missing(name))
        elif _holds_arrays(saved):
            self._misfits.append(f"{name} is an array in the checkpoint, {type(value).__name__} in the state")
        elif isinstance(container, tuple):
            self._misfits.append(f"{name} stands in a tuple with tensors, which cannot be filled: use a list")
        else:
            self.found.append((container, key, saved))

    def _misfit(self, leaf: Leaf) -> list[str]:
        if leaf.name not in self._saved.nodes:
            return [self._missing(leaf.name)]
        info = self._saved.nodes[leaf.name]
        if not isinstance(info, ArrayInfo):
            return [f"{leaf.name} is an array in the state, {type(info).__name__} in the checkpoint"]
        if (info.shape, info.dtype) != (leaf.shape, leaf.dtype):
            found = f"{info.dtype} {info.shape} in the checkpoint"
            return [f"{leaf.name}: {found}, {leaf.dtype} {leaf.shape} in the state"]
        return []

    def _missing(self, name: str) -> str:
        match = nearest(name, self._saved.nodes)
        return f"{name} is in the state only" + (f"; nearest in the checkpoint: {match}" if match else "")


def _holds_arrays(tree: Any) -> bool:
    return any(isinstance(node, ArrayInfo | torch.Tensor | np.ndarray) for _, node in named(tree))
