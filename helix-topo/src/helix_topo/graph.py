"""The graph of which motif follows which: arcs with counts, in a table of a fixed number of bytes."""

from __future__ import annotations

import ctypes
import heapq
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import torch

from helix_kernel.errors import ArgumentError
from helix_topo import native
from helix_topo.analysis import Analysis, analysed
from helix_topo.host import HostModule
from helix_topo.phases import phase, synchrony

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from helix_topo.phases import Synchrony

_COLUMNS = {
    "source": torch.int64,
    "target": torch.int64,
    "stamp": torch.int64,
    "gap": torch.int64,
    "symbol": torch.int32,
    "count": torch.int32,
    "component": torch.int32,
    "core": torch.int32,
}
ARC_BYTES = sum(dtype.itemsize for dtype in _COLUMNS.values())


@attrs.frozen(kw_only=True, eq=False)
class Arcs:
    """Arcs of a graph, column by column (n,).

    Args:
        source: Nodes from which they lead.
        target: Nodes to which they lead.
        symbol: What leads along each: of motifs, the symbol that comes next.
        count: How often each was seen.
        gap: How many arcs were counted between the last two times; 0 where there was one.
        stamp: How many had been counted when it was last.
        component: The strongly connected component that each lies in as last analysed; -1: in none.
        core: Core number of the source as last analysed.
    """

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    symbol: NDArray[np.int32]
    count: NDArray[np.int32]
    gap: NDArray[np.int64]
    stamp: NDArray[np.int64]
    component: NDArray[np.int32]
    core: NDArray[np.int32]


class TransitionGraph(HostModule):
    """A graph that is counted arc by arc, and analysed on request.

    A node's arcs share one bucket of the table with those of few others. In a full bucket the arc of the
    lowest count gives way, among equals the one counted longest ago; so what recurs stays. The table is
    buffers, which a model's checkpoint holds, and always in the host's memory.

    Args:
        budget: Bytes that the table may take.
        ways: Arcs of a bucket, hence the most that may lead away from a node.
        least: How often an arc must have been seen to be one that is analysed and followed.

    Raises:
        ArgumentError: An argument is out of range.
    """

    source: Tensor
    target: Tensor
    stamp: Tensor
    gap: Tensor
    symbol: Tensor
    count: Tensor
    component: Tensor
    core: Tensor
    counters: Tensor

    def __init__(self, *, budget: int = 1 << 22, ways: int = 16, least: int = 3) -> None:
        super().__init__()
        if ways < 1 or least < 1:
            raise ArgumentError(f"ways and least are {ways} and {least}, allowed are numbers >= 1")
        self.n_buckets, self.ways, self.least = budget // (ways * ARC_BYTES), ways, least
        if self.n_buckets < 1:
            raise ArgumentError(f"budget is {budget} bytes, allowed is >= {ways * ARC_BYTES}: one bucket")
        for name, dtype in _COLUMNS.items():
            self.register_buffer(name, torch.zeros(self.n_buckets * ways, dtype=dtype))
        self.component.fill_(-1)
        # Arcs counted, those that gave way, and how many had been counted at the last analysis.
        self.register_buffer("counters", torch.zeros(3, dtype=torch.int64))
        self._mates: dict[int, NDArray[np.int64]] | None = None

    @property
    def n_bytes(self) -> int:
        """What the table takes."""
        return self.n_buckets * self.ways * ARC_BYTES

    def add(self, source: Tensor, target: Tensor, symbol: Tensor | None = None) -> int:
        """Count arcs (n,), in their order; one whose source or target is negative is none.

        Args:
            source: int64.
            target: int64.
            symbol: int64, from 0; left out: 0. Arcs of different symbols are different ones.

        Returns:
            How many arcs gave way.

        Raises:
            ArgumentError: The shapes differ.
        """
        symbol = torch.zeros_like(source) if symbol is None else symbol
        if not source.shape == target.shape == symbol.shape or source.ndim != 1:
            shapes = [tuple(each.shape) for each in (source, target, symbol)]
            raise ArgumentError(f"source, target and symbol are {shapes}, allowed is one shape (n,)")
        columns = [_int64(each) for each in (source, target, symbol)]
        told = np.zeros(3, np.int64)
        counted = native.function("arcs_count", arguments=(*_P * 4, *_N * 2, *_P))
        addresses = [native.address(column) for column in columns]
        counted(self._table(), *addresses, len(source), int(self.counters[0]), native.address(told))
        self.counters[:2] += torch.from_numpy(told[:2])
        if told[2]:
            self._mates = None
        return int(told[1])

    def predict(self, nodes: Tensor, n_symbols: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return what leads on along cycles from nodes (n,) int64, as last analysed.

        Returns:
            The symbols' shares (n, n_symbols) float32, each row summing to 1, or 0 where no cycle is known;
            how often (n,) int64 the arcs that they are of were counted; the nodes' core numbers (n,) int64.
        """
        at = _int64(nodes)
        share = torch.zeros(len(at), n_symbols)
        total, core = (torch.empty(len(at), dtype=torch.int64) for _ in range(2))
        predicted = native.function("arcs_predict", arguments=(*_P * 2, *_N * 2, *_P * 3))
        out = [native.address(each.numpy()) for each in (share, total, core)]
        predicted(self._table(), native.address(at), len(at), n_symbols, *out)
        return share, total, core

    def arcs(self, *, least: int = 1) -> Arcs:
        """Return copies of all arcs seen `least` times or more, by source and target."""
        return self._taken(np.flatnonzero(self.count.numpy() >= least))

    def leading_from(self, node: int) -> Arcs:
        """Return the arcs that lead away from a node."""
        places = np.empty(self.ways, np.int64)
        found = native.function(
            "arcs_from",
            result=ctypes.c_int64,
            arguments=(*_P, *_N, *_P),
        )
        return self._taken(places[: found(self._table(), node, native.address(places))])

    def analyse(self) -> Analysis:
        """Analyse the arcs seen `least` times or more, and remember by arc what was found.

        Until the last step nothing of the table is changed.
        """
        count = self.count.numpy()
        strong = np.flatnonzero(count >= self.least)
        source, target = self.source.numpy()[strong], self.target.numpy()[strong]
        analysis = analysed(source, target)
        tails, heads = analysis.places(source), analysis.places(target)
        component, core = np.full(len(count), -1, np.int32), np.zeros(len(count), np.int32)
        inside = analysis.component[tails] == analysis.component[heads]
        component[strong] = np.where(inside, analysis.component[tails], -1)
        core[strong] = analysis.core[tails]
        self.component.copy_(torch.from_numpy(component))
        self.core.copy_(torch.from_numpy(core))
        self.counters[2] = self.counters[0]
        self._mates = None
        return analysis

    def component_of(self, node: int) -> int:
        """Return the component in which a node lies on a cycle, as last analysed; -1 where on none."""
        return int(max(self.leading_from(node).component, default=-1))

    def mates(self, node: int) -> NDArray[np.int64]:
        """Return the nodes on a cycle with a node, itself not among them, ascending."""
        component = self.component_of(node)
        if component < 0:
            return np.empty(0, np.int64)
        if self._mates is None:
            self._mates = self._members()
        return np.setdiff1d(self._mates[component], node)

    def likeliest(self, node: int, k: int) -> list[tuple[int, float]]:
        """Return at most `k` nodes on a cycle with a node, the likeliest to be reached from it first.

        The probability of a path is the product of its arcs' shares in what leads away from each node along
        cycles; a node's is that of its likeliest path (Dijkstra's algorithm). Of equals the smaller comes
        first. A node to which no path is left, since arcs gave way after the analysis, is not found.
        """
        heap, done, found = [(-1.0, node)], set[int](), list[tuple[int, float]]()
        while heap and len(found) < k:
            probability, at = heapq.heappop(heap)
            if at in done:
                continue
            done.add(at)
            if at != node:
                found.append((at, -probability))
            for target, share in self._shares(at):
                if target not in done:
                    heapq.heappush(heap, (probability * share, target))
        return found

    def synchrony(self) -> Synchrony:
        """Return how far the motifs of each component are in step: each with the phase of its last gap."""
        arcs = self._taken(np.flatnonzero((self.component.numpy() >= 0) & (self.gap.numpy() > 0)))
        last = np.lexsort([arcs.stamp, arcs.source])
        last = last[np.append(np.diff(arcs.source[last]) > 0, True)[: len(last)]]
        n_components = int(arcs.component.max(initial=-1)) + 1
        return synchrony(arcs.component[last].astype(np.int64), phase(arcs.gap[last]), n_components)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._mates = None

    def _table(self) -> Any:
        """Return what the compiled loops take: the columns' addresses, and the sizes."""
        columns = (getattr(self, name).data_ptr() for name in _COLUMNS)
        return ctypes.byref(_Table(*columns, self.n_buckets, self.ways))

    def _taken(self, places: NDArray[np.int64]) -> Arcs:
        order = np.lexsort([getattr(self, name).numpy()[places] for name in ("symbol", "target", "source")])
        columns = (field.name for field in attrs.fields(Arcs))
        return Arcs(**{name: getattr(self, name).numpy()[places[order]] for name in columns})

    def _members(self) -> dict[int, NDArray[np.int64]]:
        arcs = self._taken(np.flatnonzero(self.component.numpy() >= 0))
        order = np.argsort(arcs.component, kind="stable")
        numbers, starts = np.unique(arcs.component[order], return_index=True)
        # Each node on a cycle is the source of an arc of it.
        parts = np.split(arcs.source[order], starts[1:])
        return {int(number): np.unique(part) for number, part in zip(numbers, parts, strict=True)}

    def _shares(self, node: int) -> list[tuple[int, float]]:
        arcs = self.leading_from(node)
        on_cycle = arcs.component >= 0
        targets, which = np.unique(arcs.target[on_cycle], return_inverse=True)
        counts = np.bincount(which, weights=arcs.count[on_cycle])
        return list(zip(targets.tolist(), (counts / counts.sum()).tolist(), strict=True))


_P, _N = (ctypes.c_void_p,), (ctypes.c_int64,)


class _Table(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in _COLUMNS),
        ("n_buckets", ctypes.c_int64),
        ("ways", ctypes.c_int64),
    )


def _int64(column: Tensor) -> NDArray[np.int64]:
    return np.ascontiguousarray(column.detach().cpu().numpy(), np.int64)
