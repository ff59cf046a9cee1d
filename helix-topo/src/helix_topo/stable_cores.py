"""Tier M2: what lasts and is densely linked, consolidated into few dense vectors."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import normalize

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_topo.dense_rows import DenseRows
from helix_topo.graph import TransitionGraph
from helix_topo.host import HostModule
from helix_topo.prototypes import N_BUCKETS, learn, predict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from helix_topo.prediction import Prediction

_COUNTS = ("serial", "written", "queries", "merged", "evicted", "last")


class StableCores(HostModule):
    """Vectors with values, of which those that last and belong together become one.

    A key that is written recalls the entry that it is alike to, and becomes part of it: its value is then the
    mean of all that went into it, and its half-life grows. Otherwise it is an entry of its own. Arcs are
    counted from each entry to the one that is written or recalled next. A consolidation merges what has a
    half-life of `stable_from` or more, lies in the `core`-core of the arcs seen `least` times, and is on a
    cycle with others that are like it, into the one of them that most went into. Where merging would make a
    key find another entry, it is not done.

    For a language model, `select` gives motifs a row each, and `advance` learns there the mean features and
    the next symbols of the places at which those motifs end, and predicts by likeness of features.

    Args:
        d_key: Length of a key, such as a model's width.
        d_value: Length of a value, such as the number of symbols.
        capacity: Most entries.
        alike: Cosine from which on a key that is written recalls the entry most like it.
        merge_above: Cosine to their mean from which on entries of a core are merged.
        core: Core number from which on an entry belongs to a core.
        least: How often an arc must have been seen to count for that.
        stable_from: Half-life from which on an entry is stable, in the unit of `time`.
        budget: Bytes that the arcs may take.
        n_read: How many rows a prediction is made of.
        sharpness: Factor of the cosines in the softmax by which those are weighed.

    Raises:
        ArgumentError: An option is out of range.
    """

    counts: Tensor
    clock: Tensor
    n_buckets = N_BUCKETS

    def __init__(
        self,
        d_key: int,
        d_value: int,
        *,
        capacity: int = 1024,
        alike: float = 0.95,
        merge_above: float = 0.8,
        core: int = 2,
        least: int = 3,
        stable_from: float = 16.0,
        budget: int = 1 << 20,
        n_read: int = 8,
        sharpness: float = 20.0,
    ) -> None:
        super().__init__()
        _check(alike, merge_above, d_key=d_key, d_value=d_value, capacity=capacity, core=core, n_read=n_read)
        self.d_key, self.d_value, self.capacity = d_key, d_value, capacity
        self.alike, self.merge_above, self.core, self.stable_from = alike, merge_above, core, stable_from
        self.n_read, self.sharpness = n_read, sharpness
        self.rows = DenseRows(capacity, d_key, d_value)
        self.graph = TransitionGraph(budget=budget, least=least)
        self._selected_at = 0
        self.register_buffer("counts", torch.tensor([0, 0, 0, 0, 0, -1]))
        self.register_buffer("clock", torch.tensor(-math.inf, dtype=torch.float64))

    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values (N, d_value) by keys (N, d_key), one after another.

        Returns:
            The id of each one's entry (N,), new or recalled.

        Raises:
            ArgumentError: A shape does not fit, or `time` runs backwards.
        """
        if keys.shape[1:] != (self.d_key,) or values.shape != (len(keys), self.d_value):
            raise ArgumentError(
                f"keys and values are {tuple(keys.shape)} and {tuple(values.shape)}, allowed are "
                f"(N, {self.d_key}) and (N, {self.d_value})"
            )
        if not float(self.clock) <= time < math.inf:
            raise ArgumentError(f"time is {time}, allowed is a finite one >= {float(self.clock)}")
        self.clock.fill_(time)
        ids = [self._write(key, value, time) for key, value in zip(keys, values, strict=True)]
        return torch.tensor(ids, dtype=torch.int64)

    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries whose keys are most like queries (Q, d_key); scores are cosines.

        Raises:
            ArgumentError: The shape does not fit, or `k` is below 1.
        """
        if queries.shape[1:] != (self.d_key,) or k < 1:
            raise ArgumentError(
                f"queries are {tuple(queries.shape)} and k is {k}, allowed are (Q, {self.d_key}) and >= 1"
            )
        self._count("queries", len(queries))
        rows, scores = self.rows.likest(queries, k)
        known, taken = rows >= 0, rows.clamp(min=0)
        return Retrieved(
            values=self.rows.values[taken] * known[..., None],
            scores=scores,
            ids=torch.where(known, self.rows.ids[taken], -1),
        )

    def consolidate(self) -> Report:
        """Analyse the arcs, and merge what is stable, in a core and alike: all of it or nothing."""
        graph, rows = copy.deepcopy(self.graph), copy.deepcopy(self.rows)
        groups = self._groups(graph)
        merged: dict[int, int] = {}
        for members in groups:
            merged |= _merged(rows, members, self.merge_above)
        self.graph, self.rows = graph, rows
        self._count("merged", len(merged))
        return Report(merged=merged)

    def select(self, motifs: Tensor) -> None:
        """Give motifs (n,) int64 a row each, and free the rows of all other motifs.

        What was learned of a motif that had a row is kept. Where there are more than rows are free, the first
        ones get one.
        """
        known = self.rows.labels >= 0
        gone = (known & ~torch.isin(self.rows.labels, motifs)).nonzero().flatten()
        self._count("evicted", len(gone))
        self.rows.clear(gone)
        new = [motif for motif in motifs.tolist() if not bool((self.rows.labels == motif).any())]
        free = (self.rows.ids < 0).nonzero().flatten().tolist()
        for row, motif in zip(free, new, strict=False):
            self.rows.ids[row] = self._next_id()
            self.rows.labels[row] = motif

    def select_from(
        self, graph: TransitionGraph, *, stable: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Give the motifs of a graph's cores a row each: those of the largest core numbers first.

        Where the graph was not analysed anew since the last time, nothing is done.

        Args:
            graph: Of motifs, as analysed last.
            stable: Of motifs (n,), which are stable (n,) bool; left out: all.
        """
        if self._selected_at == (analysed_at := int(graph.counters[2])):
            return
        self._selected_at = analysed_at
        arcs = graph.arcs(least=graph.least)
        inside = (arcs.component >= 0) & (arcs.core >= self.core)
        motifs, first = np.unique(arcs.source[inside], return_index=True)
        motifs = motifs[np.argsort(-arcs.core[inside][first], kind="stable")]
        chosen = torch.from_numpy(motifs)
        self.select(chosen if stable is None else chosen[stable(chosen)])

    def advance(self, features: Tensor, motif: Tensor, next_ids: Tensor | None, *, write: bool) -> Prediction:
        """Predict the symbol after each place of sequences from the rows whose features are alike.

        The memory is read as it was; then the places at which a selected motif ends are learned.

        Args:
            features: (B, L, d_key) of a model.
            motif: (B, L) int64, the motif that ends at each place; -1: none.
            next_ids: (B, L) int64, the symbol after each place; may be None where nothing is written.
            write: Whether places are learned.

        Returns:
            For the B·L places.

        Raises:
            ArgumentError: The shapes differ, or there is nothing to write.
        """
        shape = motif.shape
        if features.shape != (*shape, self.d_key) or (
            write and (next_ids is None or next_ids.shape != shape)
        ):
            given = [None if each is None else tuple(each.shape) for each in (features, motif, next_ids)]
            raise ArgumentError(
                f"features, motif and next_ids are {given}, allowed are (B, L, {self.d_key}), (B, L), (B, L)"
            )
        places = normalize(features.detach().float().flatten(0, 1).cpu(), dim=-1)
        prediction = predict(self.rows, places, n_read=self.n_read, sharpness=self.sharpness)
        if write and next_ids is not None:
            learn(self.rows, places, motif.flatten().cpu(), next_ids.flatten().cpu())
        return prediction

    def cores(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return copies of the keys (n, d_key), values (n, d_value) and weights (n,) of what is merged.

        A training that replays what lasts into a model's weights may draw from these.
        """
        rows = ((self.rows.ids >= 0) & (self.rows.weights > 1)).nonzero().flatten()
        return self.rows.keys[rows], self.rows.values[rows], self.rows.weights[rows]

    def state(self) -> dict[str, Any]:
        """Return all that the memory must remember, as a copy."""
        return {name: buffer.clone() for name, buffer in self.named_buffers()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        for name, buffer in self.named_buffers():
            if state[name].shape != buffer.shape:
                raise InputError(
                    f"the state's {name} is {tuple(state[name].shape)}, this memory's {tuple(buffer.shape)}: "
                    "make the tier with the same d_key, d_value, capacity and budget"
                )
        self.load_state_dict(dict(state))

    def stats(self) -> Stats:
        """Return what the memory holds and has done."""
        counts = dict(zip(_COUNTS, self.counts.tolist(), strict=True))
        return Stats(
            entries=self.rows.n_rows(),
            written=counts["serial"] + counts["written"],
            queries=counts["queries"],
            merged=counts["merged"],
            evicted=counts["evicted"],
            n_bytes=self.rows.n_bytes + self.graph.n_bytes,
        )

    def _write(self, key: Tensor, value: Tensor, time: float) -> int:
        rows, scores = self.rows.likest(key[None], 1)
        row = int(rows[0, 0])
        if float(scores[0, 0]) >= self.alike:
            self.rows.merge(row, value, time=time)
            self._count("written", 1)  # what is no entry of its own; those that are, have a serial number
            self._count("merged", 1)
        else:
            row, gives_way = self.rows.free_row(time)
            self._count("evicted", int(gives_way))
            self.rows.put(row, key, value, entry=self._next_id(), time=time)
        entry = self.rows.ids[row].clone()
        self.graph.add(self.counts[-1:], entry[None])
        self.counts[-1] = entry
        return int(entry)

    def _groups(self, graph: TransitionGraph) -> list[Tensor]:
        """Return the rows of stable entries in cores, those of each component by themselves."""
        analysis = graph.analyse()
        places = torch.from_numpy(analysis.places(self.rows.ids.numpy()))
        known = (self.rows.ids >= 0) & (self.rows.half_life >= self.stable_from) & (places >= 0)
        rows = known.nonzero().flatten()
        component, core = (torch.from_numpy(x)[places[rows]] for x in (analysis.component, analysis.core))
        rows, component = rows[core >= self.core], component[core >= self.core]
        return [rows[component == number] for number in torch.unique(component).tolist()]

    def _next_id(self) -> int:
        self._count("serial", 1)
        return int(self.counts[0]) - 1

    def _count(self, name: str, count: int) -> None:
        self.counts[_COUNTS.index(name)] += count


def _merged(rows: DenseRows, members: Tensor, merge_above: float) -> dict[int, int]:
    """Merge those of some rows that are like their mean, and say which became which."""
    while len(members) > 1:
        weights = rows.weights[members].float()[:, None]
        mean = normalize((normalize(rows.keys[members], dim=-1) * weights).sum(0), dim=0)
        likeness = normalize(rows.keys[members], dim=-1) @ mean
        if likeness.min() < merge_above:
            members = members[likeness > likeness.min()]
            continue
        survivor = int(members[weights.flatten().argmax()])
        others = members[members != survivor]
        after = copy.deepcopy(rows)
        after.keys[survivor] = mean
        after.values[survivor] = (rows.values[members] * weights).sum(0) / weights.sum()
        after.weights[survivor] = rows.weights[members].sum()
        after.half_life[survivor] = rows.half_life[members].max()
        after.recalled_at[survivor] = rows.recalled_at[members].max()
        after.clear(others)
        lost = after.likest(rows.keys[members], 1)[0][:, 0] != survivor
        if not bool(lost.any()):
            became = {int(rows.ids[other]): int(rows.ids[survivor]) for other in others}
            rows.load_state_dict(after.state_dict())
            return became
        members = members[~lost]
    return {}


def _check(alike: float, merge_above: float, **sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ArgumentError(f"{name} is {size}, allowed is >= 1")
    for name, cosine in {"alike": alike, "merge_above": merge_above}.items():
        if not 0 < cosine <= 1:
            raise ArgumentError(f"{name} is {cosine}, allowed is a cosine > 0 and <= 1")
