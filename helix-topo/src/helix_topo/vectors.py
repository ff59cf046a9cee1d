"""A memory of vectors: keys with values, found by likeness, of which the least stable give way."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_topo.free_slots import FreeSlots
from helix_topo.search.exact import ExactIndex

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_topo.search.index import Index

_CHUNK = 256
_COUNTS = ("serial", "written", "queries", "merged", "evicted")
# What float32 may round in a product of unit vectors.
_ROUNDING = 1e-5


class Vectors(nn.Module):
    """Keys and values as vectors; the score of an entry is the cosine of its key and the query.

    Its tables are buffers, so that they move, are saved and are loaded with a model that holds it; the graph
    of `search="approximate"` is then built again from them, in the order in which entries were written.
    `state` holds the graph itself.

    An entry counts as recalled when it is the first that a query finds and at least as like as
    `recall_above`, when a key is merged into it, and when `recalled` says so.

    Args:
        d_key: Length of a key.
        d_value: Length of a value.
        capacity: Most entries.
        eviction: Builds what decides which entry gives way, given `capacity`; None for the least recently
            recalled.
        search: "exact" compares a query with all keys, "approximate" walks a graph of neighbours.
        n_neighbors: Neighbours of a key in that graph.
        n_tried: Candidates that a walk keeps; more find more and take longer.
        merge_above: Cosine from which on a key that is written becomes part of the entry most like it, whose
            value is then the mean of all that went into it; None to keep all apart.
        recall_above: Cosine from which on a query recalls what it finds first.
        value_dtype: Of the values that are written and read.

    Raises:
        ArgumentError: A size or a cosine is out of range.
    """

    keys: Tensor
    values: Tensor
    ids: Tensor
    weights: Tensor
    counts: Tensor
    clock: Tensor

    def __init__(
        self,
        d_key: int,
        d_value: int,
        *,
        capacity: int = 65_536,
        eviction: Callable[..., Any] | None = None,
        search: Literal["exact", "approximate"] = "exact",
        n_neighbors: int = 16,
        n_tried: int = 64,
        merge_above: float | None = None,
        recall_above: float = 0.9,
        value_dtype: Literal["float32", "float64", "float16", "bfloat16"] = "float32",
    ) -> None:
        super().__init__()
        _check_options(d_key, d_value, capacity, merge_above, recall_above)
        self.d_key, self.d_value, self.capacity = d_key, d_value, capacity
        self.value_dtype: torch.dtype = getattr(torch, value_dtype)
        self._merge_above, self._recall_above = merge_above, recall_above
        self._make_index: Callable[[], Index] = ExactIndex
        if search == "approximate":
            self._make_index = _approximate(d_key, n_neighbors, n_tried)
        self._index = self._make_index()
        self._policy = (eviction or _Recency)(capacity=capacity)
        self.register_buffer("keys", torch.zeros(capacity, d_key))
        self.register_buffer("values", torch.zeros(capacity, d_value, dtype=self.value_dtype))
        self.register_buffer("ids", torch.full((capacity,), -1))
        self.register_buffer("weights", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(len(_COUNTS), dtype=torch.int64))
        # The bits of a float64: a model that is cast to another floating dtype must not change the time.
        self.register_buffer("clock", torch.tensor(_bits(-math.inf)))
        self._free = FreeSlots(self.ids >= 0)
        self.register_load_state_dict_post_hook(Vectors._restore)  # type: ignore[no-untyped-call]  # torch's

    @torch.no_grad()
    def write(self, keys: Tensor, values: Tensor, *, time: float) -> Tensor:
        """Remember values (N, d_value) by keys (N, d_key); see `helix_kernel.memory.MemoryTier`.

        Returns:
            The id of each one's entry (N,). One that was merged has that of the entry that it is part of.

        Raises:
            ArgumentError: A shape or dtype does not fit, a key is not finite, or `time` runs backwards.
        """
        self._check_written(keys, values, time)
        self.clock.fill_(_bits(time))
        keys, values = self._unit(keys), values.to(self.values.device)
        self._count("written", len(keys))
        if self._merge_above is None:
            return self._insert(keys, values)
        chunks = zip(torch.split(keys, _CHUNK), torch.split(values, _CHUNK), strict=True)
        return torch.cat([self.ids[:0], *(self._merge_or_insert(*chunk) for chunk in chunks)])

    @torch.no_grad()
    def read(self, queries: Tensor, k: int) -> Retrieved:
        """Find the entries whose keys are most like queries (Q, d_key).

        Raises:
            ArgumentError: A shape does not fit, a query is not finite, or `k` is below 1.
        """
        _check_vectors("queries", queries, self.d_key)
        if k < 1:
            raise ArgumentError(f"vectors: k is {k}, allowed is >= 1")
        slots, scores = self._index.find(self._unit(queries), self.keys, self.ids, k)
        self._count("queries", len(queries))
        self._recall(slots[:, 0][scores[:, 0] >= self._recall_above], correct=True)
        known = slots >= 0
        taken = slots.clamp(min=0)
        return Retrieved(
            values=self.values[taken].masked_fill_(~known.unsqueeze(-1), 0),
            scores=scores,
            ids=torch.where(known, self.ids[taken], -1),
        )

    @torch.no_grad()
    def recalled(self, ids: Tensor, *, correct: Tensor) -> None:
        """Tell which entries were of use, such as those that predicted what came.

        Args:
            ids: (N,) int64, as `write` or `read` gave them; entries that are no more are passed over.
            correct: (N,) bool, whether each was right.
        """
        slots = ids.clamp(min=0) % self.capacity
        there = (ids >= 0) & (self.ids[slots] == ids)
        for right in (True, False):
            self._recall(slots[there & (correct == right)], correct=right)

    @torch.no_grad()
    def consolidate(self) -> Report:
        """Build the graph of neighbours anew, without traces of what is no more; no entry is lost.

        The old graph serves until the new one is whole.
        """
        index = self._make_index()
        slots = _by_age(self.ids)
        index.added(slots, self.keys[slots])
        self._index = index
        return Report()

    def state(self) -> dict[str, Any]:
        """Return all that the memory must remember, as copies."""
        return {
            "options": self._options(),
            "tables": {name: table.clone() for name, table in self.named_buffers()},
            "policy": self._policy.state(),
            "index": self._index.state(),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Become the memory that `state` was taken from, to the bit.

        Raises:
            InputError: The state is that of a memory with other options.
        """
        for name, own in self._options().items():
            if state["options"].get(name) != own:
                raise InputError(
                    f"vectors: the state is of a memory with {name}={state['options'].get(name)!r}, "
                    f"allowed is {own!r}: build the memory with the options that it was saved with"
                )
        index = self._make_index()
        index.load_state(state["index"])
        self._policy.load_state(state["policy"])
        for name, table in self.named_buffers():
            table.copy_(state["tables"][name])
        self._index, self._free = index, FreeSlots(self.ids >= 0)

    def stats(self) -> Stats:
        """Return what the memory holds and has done; its bytes are all that was set aside."""
        counts = dict(zip(_COUNTS, self.counts.tolist(), strict=True))
        counts.pop("serial")
        n_bytes = sum(table.numel() * table.element_size() for table in self.buffers())
        return Stats(
            entries=self.capacity - len(self._free), n_bytes=n_bytes + self._index.n_bytes(), **counts
        )

    def _restore(self, _: Any) -> None:
        """Make anew what follows from the tables, after these were loaded into the module."""
        self._free = FreeSlots(self.ids >= 0)
        self.consolidate()

    def _insert(self, keys: Tensor, values: Tensor) -> Tensor:
        slots = torch.tensor(self._slots(len(keys)), dtype=torch.int64, device=self.ids.device)
        serials = int(self.counts[_COUNTS.index("serial")]) + torch.arange(len(keys), device=slots.device)
        self._count("serial", len(keys))
        # So that an id leads to its slot, and later ids are larger.
        ids = torch.where(slots < 0, -1, serials * self.capacity + slots)
        # Of keys that came to one slot, since a later one took an earlier one's, the last is there.
        rows = {slot: row for row, slot in enumerate(slots.tolist()) if slot >= 0}
        last = torch.tensor(list(rows.values()), dtype=torch.int64, device=slots.device)
        slots, now = slots[last], keys[last]
        self._index.removed(slots[self.ids[slots] >= 0])
        self.keys[slots], self.values[slots], self.ids[slots] = now, values[last], ids[last]
        self.weights[slots] = 1
        self._index.added(slots, now)
        return ids

    def _slots(self, count: int) -> list[int]:
        """Take a slot for each of so many new entries, those of evicted ones where none is free."""
        time = self._time()
        slots = self._free.take(count)
        self._policy.added(slots, time)
        for _ in range(count - len(slots)):
            slot = self._policy.victim(time)
            self._policy.forgotten([slot])
            self._policy.added([slot], time)
            slots.append(slot)
            self._count("evicted", 1)
        return slots

    def _merge_or_insert(self, keys: Tensor, values: Tensor) -> Tensor:
        """Write one key after another; what all of them find at first is looked up together."""
        assert self._merge_above is not None
        found, scores = self._index.find(keys, self.keys, self.ids, 1)
        likeness = keys @ keys.T
        ids, new, changed = [], list[int](), set[int]()
        for row in range(len(keys)):
            slot, score = int(found[row, 0]), float(scores[row, 0])
            crowd = likeness[row, new] >= self._merge_above - _ROUNDING
            if slot in changed or bool(crowd.any()):
                again, likest = self._index.find(keys[row : row + 1], self.keys, self.ids, 1)
                slot, score = int(again), float(likest)
            if score >= self._merge_above:
                self._merge(slot, values[row])
            else:
                slot = int(self._insert(keys[row : row + 1], values[row : row + 1])) % self.capacity
                changed.add(slot)
                new.append(row)
            ids.append(int(self.ids[slot]))
        return torch.tensor(ids, device=self.ids.device)

    def _merge(self, slot: int, value: Tensor) -> None:
        self.weights[slot] += 1
        self.values[slot] += (value - self.values[slot]) / self.weights[slot]
        self._count("merged", 1)
        self._policy.recalled([slot], self._time(), correct=True)

    def _recall(self, slots: Tensor, *, correct: bool) -> None:
        if len(slots):
            self._policy.recalled(slots.tolist(), self._time(), correct=correct)

    def _count(self, name: str, count: int) -> None:
        self.counts[_COUNTS.index(name)] += count

    def _time(self) -> float:
        return _time_of(int(self.clock))

    def _unit(self, keys: Tensor) -> Tensor:
        return normalize(keys.to(self.keys.device, self.keys.dtype), dim=1)

    def _options(self) -> dict[str, Any]:
        names = ("d_key", "d_value", "capacity")
        return {**{name: getattr(self, name) for name in names}, "value_dtype": str(self.value_dtype)}

    def _check_written(self, keys: Tensor, values: Tensor, time: float) -> None:
        _check_vectors("keys", keys, self.d_key)
        if values.shape != (len(keys), self.d_value) or values.dtype != self.values.dtype:
            raise ArgumentError(
                f"vectors: values have shape {tuple(values.shape)} and dtype {values.dtype}, allowed are "
                f"({len(keys)}, {self.d_value}) and {self.values.dtype}, the memory's value_dtype"
            )
        if not self._time() <= time < math.inf:
            raise ArgumentError(
                f"vectors: time is {time}, allowed is a finite one from {self._time()}, when it was last "
                "written"
            )


class _Recency:
    """Evicts what was recalled least recently."""

    def __init__(self, capacity: int) -> None:
        self._now = 0
        self._used = torch.full((capacity,), -1)

    def added(self, slots: list[int], _: float) -> None:
        for slot in slots:
            self._now += 1
            self._used[slot] = self._now

    def recalled(self, slots: list[int], time: float, *, correct: bool) -> None:
        if correct:
            self.added(slots, time)

    def forgotten(self, slots: list[int]) -> None:
        self._used[slots] = -1

    def victim(self, _: float) -> int:
        return int(torch.where(self._used < 0, self._now + 1, self._used).argmin())

    def state(self) -> dict[str, Any]:
        return {"used": self._used.clone(), "now": self._now}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._used.copy_(state["used"])
        self._now = state["now"]


def _approximate(d_key: int, n_neighbors: int, n_tried: int) -> Callable[[], Index]:
    from helix_topo.search.approximate import ApproximateIndex

    return lambda: ApproximateIndex(d_key, n_neighbors=n_neighbors, n_tried=n_tried)


def _by_age(ids: Tensor) -> Tensor:
    """Return the slots of all entries, the one written first before the others."""
    slots = (ids >= 0).nonzero().flatten()
    return slots[ids[slots].argsort()]


def _check_options(
    d_key: int, d_value: int, capacity: int, merge_above: float | None, recall_above: float
) -> None:
    for name, size in {"d_key": d_key, "d_value": d_value, "capacity": capacity}.items():
        if size < 1:
            raise ArgumentError(f"vectors: {name} is {size}, allowed is >= 1")
    for name, cosine in {"merge_above": merge_above, "recall_above": recall_above}.items():
        if cosine is not None and not -1 <= cosine <= 1:
            raise ArgumentError(f"vectors: {name} is {cosine}, allowed is a cosine, -1 to 1")


def _check_vectors(name: str, vectors: Tensor, width: int) -> None:
    if vectors.dim() != 2 or vectors.shape[1] != width or not vectors.is_floating_point():
        raise ArgumentError(
            f"vectors: {name} have shape {tuple(vectors.shape)} and dtype {vectors.dtype}, allowed is a "
            f"floating (N, d_key={width})"
        )
    if not bool(vectors.isfinite().all()):
        raise ArgumentError(f"vectors: {name} hold infinite or undefined numbers, allowed are finite ones")


def _bits(time: float) -> int:
    bits: int = struct.unpack("<q", struct.pack("<d", time))[0]
    return bits


def _time_of(bits: int) -> float:
    time: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return time
