"""Tier M1: the graph of which motif follows which, and what lies on a cycle with the current one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import attrs
import numpy as np
import torch
from torch import nn

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import MemoryTier, Report, Retrieved, Stats
from helix_topo.graph import TransitionGraph
from helix_topo.phases import phase
from helix_topo.prediction import Prediction

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_TOTALS, _CORES = 8, 4
_FIRST_ANALYSIS = 4096


class Below(MemoryTier, Protocol):
    """The tier whose entries are the graph's nodes."""

    def values_of(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values (N, d_value) of entries (N,), 0 where there is none; and where there is one."""
        ...


class Cycles(nn.Module):
    """Counts which entry of the tier below follows which, and finds what lies on a cycle with one.

    Keys and values lie in the tier below; here are arcs from each entry that is written to the next. What was
    counted is found from the next consolidation on. A query's best entry below comes first, then those on a
    cycle with it, the likeliest to be reached first, then what else is found below.

    For a language model, `advance` counts the transitions between the motifs of successive places, and
    predicts the symbols along arcs that lie on cycles.

    Args:
        below: The tier that holds the entries; None where only ids are given, by `follow` and `advance`.
        budget: Bytes that the arcs may take.
        ways: Most arcs that lead away from an entry.
        least: How often an arc must have been seen to be followed.
        gate_by_phase: Whether what is out of step with its component is found later (`phases.Synchrony`).
        analyse_every: Arcs after which `advance` analyses the graph; the first time after 4096, then after
            twice as many as the last time, until these are as many as this.

    Raises:
        ArgumentError: An option is out of range.
    """

    last: Tensor
    n_buckets = 1 + _TOTALS * _CORES

    def __init__(
        self,
        below: Below | None = None,
        *,
        budget: int = 1 << 22,
        ways: int = 16,
        least: int = 3,
        gate_by_phase: bool = False,
        analyse_every: int = 1 << 20,
    ) -> None:
        super().__init__()
        if analyse_every < 1:
            raise ArgumentError(f"analyse_every is {analyse_every}, allowed is >= 1")
        self.below, self.gate_by_phase, self.analyse_every = below, gate_by_phase, analyse_every
        self.graph = TransitionGraph(budget=budget, ways=ways, least=least)
        self.register_buffer("last", torch.tensor(-1))
        if below is not None:
            self.d_key, self.d_value, self.capacity = below.d_key, below.d_value, below.capacity
            self.key_dtype = getattr(below, "key_dtype", torch.float32)
            self.value_dtype = getattr(below, "value_dtype", torch.float32)

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Write into the tier below, and count the arcs between what was written one after another."""
        ids = self._tier().write(keys, values, time=time)
        self.follow(ids)
        return ids

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find each query's entry, what lies on a cycle with it, and what else is found below.

        Scores are 2 + u(s) for the first, with s the score below and u(s) = ½ + atan(s) / π; 1 + p for what
        is on a cycle with it and reached with probability p; u(s) for the rest.
        """
        own = self._tier().read(queries, k)
        rows = [self._arranged(own, row, k) for row in range(len(queries))]
        ids = torch.tensor([[entry for entry, _ in row] for row in rows], dtype=torch.int64).reshape(-1, k)
        scores = torch.tensor([[score for _, score in row] for row in rows]).reshape(-1, k)
        values, _ = self._tier().values_of(ids.flatten())
        return Retrieved(values=values.reshape(*ids.shape, -1), scores=scores, ids=ids)

    def consolidate(self) -> Report:
        """Consolidate the tier below, then analyse the graph; each is done wholly or not at all."""
        report = Report() if self.below is None else self.below.consolidate()
        self.graph.analyse()
        return report

    def follow(self, ids: Tensor) -> None:
        """Count the arcs between entries (n,) int64 that come one after another; -1 is none, and parts."""
        path = torch.cat([self.last.to(ids.device).reshape(1), ids])
        self.graph.add(path[:-1], path[1:])
        self.last.copy_(path[-1])

    def mates(self, entry: int, k: int) -> list[tuple[int, float]]:
        """Return at most `k` entries on a cycle with one, with the probability that each is reached."""
        found = self.graph.likeliest(entry, k)
        if not (self.gate_by_phase and found):
            return found
        synchrony = self.graph.synchrony()
        component = np.full(len(found), self.graph.component_of(entry))
        gates = synchrony.gate(component, np.array([self._phase(node) for node, _ in found]))
        gated = [(node, p * gate) for (node, p), gate in zip(found, gates.tolist(), strict=True)]
        return sorted(gated, key=lambda each: (-each[1], each[0]))

    def advance(self, motif: Tensor, next_ids: Tensor | None, *, n_symbols: int, write: bool) -> Prediction:
        """Predict what comes after each place of sequences, from the arcs that lead on along cycles.

        The memory is read as it was; then the rows' transitions are counted.

        Args:
            motif: (B, L) int64, the longest motif known that ends at each place; -1: none.
            next_ids: (B, L) int64, the symbol after each place, which is what leads from a motif to the next;
                may be None where nothing is written.
            n_symbols: How many symbols there are.
            write: Whether transitions are counted.

        Returns:
            For the B·L places; its buckets, below `n_buckets`, are of how often the arcs were counted and of
            the motif's core number.

        Raises:
            ArgumentError: The shapes differ, or there is nothing to write.
        """
        if write and (next_ids is None or next_ids.shape != motif.shape):
            given = None if next_ids is None else tuple(next_ids.shape)
            raise ArgumentError(f"next_ids are {given}, allowed is the shape of motif: {tuple(motif.shape)}")
        share, total, core = self.graph.predict(motif.flatten(), n_symbols)
        if write and next_ids is not None:
            self.graph.add(*(x.flatten() for x in (motif[:, :-1], motif[:, 1:], next_ids[:, :-1])))
            self._analyse_when_due()
        return Prediction(probabilities=share, bucket=_buckets(total, core))

    def state(self) -> dict[str, Any]:
        """Return all that this tier and the one below remember, as a copy."""
        graph = {name: buffer.clone() for name, buffer in self.graph.named_buffers()}
        below = {} if self.below is None else self.below.state()
        return {"below": below, "graph": graph, "last": int(self.last)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        own = dict(self.graph.named_buffers())
        shapes = [
            {name: tuple(each.shape) for name, each in table.items()} for table in (own, state["graph"])
        ]
        if shapes[0] != shapes[1]:
            sizes = [shape.get("count") for shape in shapes]
            raise InputError(
                f"the state is of a graph of {sizes[1]} arcs, this one has {sizes[0]}: "
                "make the tier with the same budget and ways"
            )
        if self.below is not None:
            self.below.load_state(state["below"])
        self.graph.load_state_dict(state["graph"])
        self.last.fill_(state["last"])

    def stats(self) -> Stats:
        """Return what the tier below counts; the bytes are those of both."""
        stats = self._tier().stats()
        return attrs.evolve(stats, n_bytes=stats.n_bytes + self.graph.n_bytes)

    def _tier(self) -> Below:
        if self.below is None:
            raise ArgumentError("this tier has no tier below: give it one, such as below.use = 'motifs'")
        return self.below

    def _arranged(self, own: Retrieved, row: int, k: int) -> list[tuple[int, float]]:
        """Return the k entries of a query with their scores; -1 and -inf where there are fewer."""
        below = [
            (entry, score)
            for entry, score in zip(own.ids[row].tolist(), own.scores[row].tolist(), strict=True)
            if entry >= 0
        ]
        found = [(entry, 2 + _squashed(score)) for entry, score in below[:1]]
        found += [(entry, 1 + p) for entry, p in self._held_mates(below, k - 1)]
        seen = {entry for entry, _ in found}
        found += [(entry, _squashed(score)) for entry, score in below if entry not in seen]
        return (found + [(-1, -math.inf)] * k)[:k]

    def _held_mates(self, below: list[tuple[int, float]], k: int) -> list[tuple[int, float]]:
        """Return what lies on a cycle with a query's first entry, and is still held."""
        if not (below and k):
            return []
        n_asked, n_found = 0, 1
        held: list[tuple[int, float]] = []
        while len(held) < k and n_asked < n_found:  # some that are on the cycle may be no more
            n_asked = 2 * max(k, n_asked)
            mates = self.mates(below[0][0], n_asked)
            _, is_held = self._tier().values_of(torch.tensor([node for node, _ in mates], dtype=torch.int64))
            held = [mate for mate, kept in zip(mates, is_held.tolist(), strict=True) if kept]
            n_found = len(mates) + 1
        return held[:k]

    def _phase(self, node: int) -> float:
        """Return the phase of a node's last gap; 0 where it has not recurred."""
        arcs = self.graph.leading_from(node)
        recurred = np.flatnonzero(arcs.gap > 0)
        if not len(recurred):
            return 0.0
        return float(phase(arcs.gap[recurred[np.argmax(arcs.stamp[recurred])]]))

    def _analyse_when_due(self) -> None:
        counted, _, last = self.graph.counters.tolist()
        if counted - last >= min(max(last, _FIRST_ANALYSIS), self.analyse_every):
            self.graph.analyse()


def _squashed(score: float) -> float:
    return 0.5 + math.atan(score) / math.pi


def _buckets(total: Tensor, core: Tensor) -> Tensor:
    """Return the class of each find: by the logarithms of its count and of its core number; 0 for none."""
    totals = total.clamp(min=1).double().log2().long().clamp(max=_TOTALS - 1)
    cores = core.clamp(min=1).double().log2().long().clamp(max=_CORES - 1)
    return torch.where(total > 0, 1 + totals * _CORES + cores, 0)
