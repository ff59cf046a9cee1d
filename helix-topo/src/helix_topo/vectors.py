"""A memory of vectors: keys with values, found by likeness, of which the least stable give way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_topo.free_slots import FreeSlots
from helix_topo.host import HostModule
from helix_topo.ledger import Ledger
from helix_topo.search.exact import ExactIndex
from helix_topo.stability import ClosedForm, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_topo.config.vectors import Form
    from helix_topo.search.index import Index

_CHUNK = 256
_COUNTS = ("serial", "written", "queries", "merged", "evicted")
# What float32 may round in a product of unit vectors.
_ROUNDING = 1e-5


class Vectors(HostModule):
    """Keys and values as vectors; the score of an entry is the cosine of its key and the query.

    Its tables are buffers, so that they are saved and loaded with a model that holds it; the graph of
    `search="approximate"` is then built again from them, in the order in which entries were written. `state`
    holds the graph itself. Tables stay in the host's memory.

    An entry counts as recalled when it is the first that a query finds and at least as like as
    `recall_above`, when a key is merged into it, and when `recalled` says so. In eval mode (`Module.eval`)
    reading counts nothing and recalls nothing.

    Args:
        d_key: Length of a key.
        d_value: Length of a value.
        capacity: Most entries.
        eviction: Builds what decides which entry gives way, given `capacity`; None for the one of the lowest
            retrievability, found by comparing all.
        search: "exact" compares a query with all keys, "approximate" walks a graph of neighbours.
        n_neighbors: Neighbours of a key in that graph.
        n_tried: Candidates that a walk keeps; more find more and take longer.
        merge_above: Cosine from which on a key that is written becomes part of the entry most like it, whose
            value is then the mean of all that went into it; None to keep all apart.
        recall_above: Cosine from which on a query recalls what it finds first.
        forget_below: Retrievability below which `consolidate` removes an entry; 0 to keep all.
        value_dtype: Of the values that are written and read.
        stability: Whether entries stand by a half-life that grows with recalls, or by the older closed form,
            S = ln(1 + R + C) + E + Φ - decay; see `helix_topo.stability`.
        decay: What the closed form takes away for each unit of time without a recall.

    Raises:
        ArgumentError: A size, a cosine or a probability is out of range, or the eviction is `offline`.
    """

    keys: Tensor
    values: Tensor
    ids: Tensor
    weights: Tensor
    counts: Tensor

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
        forget_below: float = 0.0,
        value_dtype: Literal["float32", "float64", "float16", "bfloat16"] = "float32",
        stability: Form = "half-life",
        decay: float = 0.01,
    ) -> None:
        super().__init__()
        _check_sizes({"d_key": d_key, "d_value": d_value, "capacity": capacity})
        _check_range({"merge_above": merge_above, "recall_above": recall_above}, -1, 1)
        _check_range({"forget_below": forget_below}, 0, 1)
        self.d_key, self.d_value, self.capacity = d_key, d_value, capacity
        self.value_dtype: torch.dtype = getattr(torch, value_dtype)
        self._merge_above, self._recall_above = merge_above, recall_above
        self._forget_below, self._stability = forget_below, stability
        self._make_index: Callable[[], Index] = ExactIndex
        if search == "approximate":
            self._make_index = _approximate(d_key, n_neighbors, n_tried)
        self._index = self._make_index()
        self._policy: Any = None if eviction is None else _online(eviction(capacity=capacity))
        self.ledger = Ledger(capacity, ClosedForm(decay=decay) if stability == "closed-form" else Rule())
        self.register_buffer("keys", torch.zeros(capacity, d_key))
        self.register_buffer("values", torch.zeros(capacity, d_value, dtype=self.value_dtype))
        self.register_buffer("ids", torch.full((capacity,), -1))
        self.register_buffer("weights", torch.zeros(capacity, dtype=torch.int64))
        self.register_buffer("counts", torch.zeros(len(_COUNTS), dtype=torch.int64))
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
        self.ledger.added([], time)
        keys, values = self._unit(keys), values.cpu()
        self._count("written", len(keys))
        if self._merge_above is None:
            return self._insert(keys, values, time)
        chunks = zip(torch.split(keys, _CHUNK), torch.split(values, _CHUNK), strict=True)
        return torch.cat([self.ids[:0], *(self._merge_or_insert(*chunk, time) for chunk in chunks)])

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
        if self.training:
            self._count("queries", len(queries))
            self._recall(slots[:, 0][scores[:, 0] >= self._recall_above], self._time(), correct=True)
        known = slots >= 0
        taken = slots.clamp(min=0)
        return Retrieved(
            values=self.values[taken].masked_fill_(~known.unsqueeze(-1), 0),
            scores=scores,
            ids=torch.where(known, self.ids[taken], -1),
        )

    @torch.no_grad()
    def recalled(
        self,
        ids: Tensor,
        *,
        correct: Tensor,
        saved_bits: Tensor | None = None,
        before: Tensor | None = None,
    ) -> None:
        """Tell which entries were of use, such as those that predicted what came.

        Args:
            ids: (N,) int64, as `write` or `read` gave them; entries that are no more are passed over.
            correct: (N,) bool, whether each was right.
            saved_bits: (N,) what each saved, for E; left out, nothing is known of it.
            before: (N,) int64, numbers that stand for what came before each, for C.
        """
        slots = ids.clamp(min=0) % self.capacity
        there = (ids >= 0) & (self.ids[slots] == ids)
        for right in (True, False):
            own = there & (correct == right)
            told = (None if each is None else each[own].numpy() for each in (saved_bits, before))
            self._recall(slots[own], self._time(), correct=right, told=tuple(told))

    @torch.no_grad()
    def consolidate(self) -> Report:
        """Remove what is below `forget_below`, and build the graph of neighbours anew, without its traces.

        The old memory serves until the new graph is whole.
        """
        faint = (self.ids >= 0).numpy() & (self.ledger.retrievability(self._time()) < self._forget_below)
        removed = torch.from_numpy(faint)
        index = self._make_index()
        slots = _by_age(torch.where(removed, -1, self.ids))
        index.added(slots, self.keys[slots])
        report = Report(removed=tuple(self.ids[removed].tolist()))
        self._remove(removed.nonzero().flatten())
        self._index = index
        self.ledger.classed(self._time())
        return report

    def state(self) -> dict[str, Any]:
        """Return all that the memory must remember, as copies."""
        return {
            "options": self._options(),
            "tables": {name: table.clone() for name, table in self.named_buffers()},
            "policy": None if self._policy is None else self._policy.state(),
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
        if self._policy is not None:
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

    def _insert(self, keys: Tensor, values: Tensor, time: float) -> Tensor:
        ids = [self.ids[:0]]
        while len(keys):
            count = min(len(keys), len(self._free) or self.capacity)
            ids.append(self._put(keys[:count], values[:count], self._slots(count, time)))
            keys, values = keys[count:], values[count:]
        return torch.cat(ids)

    def _put(self, keys: Tensor, values: Tensor, slots: Tensor) -> Tensor:
        serials = int(self.counts[_COUNTS.index("serial")]) + torch.arange(len(keys))
        self._count("serial", len(keys))
        # So that an id leads to its slot, and later ids are larger.
        ids = serials * self.capacity + slots
        # Of keys that came to one slot, since a later one took an earlier one's, the last is there.
        rows = {slot: row for row, slot in enumerate(slots.tolist())}
        last = torch.tensor(list(rows.values()))
        slots, now = slots[last], keys[last]
        self._index.removed(slots[self.ids[slots] >= 0])
        self.keys[slots], self.values[slots], self.ids[slots] = now, values[last], ids[last]
        self.weights[slots] = 1
        self._index.added(slots, now)
        return ids

    def _slots(self, count: int, time: float) -> Tensor:
        """Begin so many entries in free slots, if there are any, or in those of entries that give way."""
        if len(self._free):
            slots = self._free.take(count)
            self._begin(slots, time)
        elif self._policy is None:
            order = np.lexsort((self.ids.numpy(), self.ledger.standing(time)))
            slots = order[:count].tolist()
            self._begin(slots, time)
            self._count("evicted", count)
        else:
            slots = [self._replaced(time) for _ in range(count)]
        return torch.tensor(slots)

    def _replaced(self, time: float) -> int:
        slot: int = self._policy.victim(time)
        self._policy.forgotten([slot])
        self._begin([slot], time)
        self._count("evicted", 1)
        return slot

    def _begin(self, slots: list[int], time: float) -> None:
        self.ledger.added(slots, time)
        if self._policy is not None:
            self._policy.added(slots, time)

    def _remove(self, slots: Tensor) -> None:
        self.ids[slots] = -1
        self.ledger.forgotten(slots.numpy())
        if self._policy is not None:
            self._policy.forgotten(slots.tolist())
        self._free.give_back(slots.tolist())
        self._count("evicted", len(slots))

    def _merge_or_insert(self, keys: Tensor, values: Tensor, time: float) -> Tensor:
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
                self._merge(slot, values[row], time)
            else:
                slot = int(self._insert(keys[row : row + 1], values[row : row + 1], time)) % self.capacity
                changed.add(slot)
                new.append(row)
            ids.append(int(self.ids[slot]))
        return torch.tensor(ids)

    def _merge(self, slot: int, value: Tensor, time: float) -> None:
        self.weights[slot] += 1
        self.values[slot] += (value - self.values[slot]) / self.weights[slot]
        self._count("merged", 1)
        self._recall(torch.tensor([slot]), time, correct=True)

    def _recall(
        self, slots: Tensor, time: float, *, correct: bool, told: tuple[Any, ...] = (None, None)
    ) -> None:
        if len(slots):
            saved_bits, before = told
            self.ledger.recalled(slots.numpy(), time, correct=correct, saved_bits=saved_bits, before=before)
            if self._policy is not None:
                self._policy.recalled(slots.tolist(), time, correct=correct)

    def _count(self, name: str, count: int) -> None:
        self.counts[_COUNTS.index(name)] += count

    def _time(self) -> float:
        return float(self.ledger.clock)

    def _unit(self, keys: Tensor) -> Tensor:
        return normalize(keys.cpu().float(), dim=1)

    def _options(self) -> dict[str, Any]:
        names = ("d_key", "d_value", "capacity")
        own = {name: getattr(self, name) for name in names}
        return {**own, "value_dtype": str(self.value_dtype), "stability": self._stability}

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


def _online(policy: Any) -> Any:
    if policy.offline:
        raise ArgumentError(
            f"vectors: eviction {type(policy).__name__} must know what will be asked for, allowed are those "
            "that need not"
        )
    return policy


def _approximate(d_key: int, n_neighbors: int, n_tried: int) -> Callable[[], Index]:
    from helix_topo.search.approximate import ApproximateIndex

    return lambda: ApproximateIndex(d_key, n_neighbors=n_neighbors, n_tried=n_tried)


def _by_age(ids: Tensor) -> Tensor:
    """Return the slots of all entries, the one written first before the others."""
    slots = (ids >= 0).nonzero().flatten()
    return slots[ids[slots].argsort()]


def _check_sizes(sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ArgumentError(f"vectors: {name} is {size}, allowed is >= 1")


def _check_range(numbers: dict[str, float | None], least: float, most: float) -> None:
    for name, number in numbers.items():
        if number is not None and not least <= number <= most:
            raise ArgumentError(f"vectors: {name} is {number}, allowed is {least} to {most}")


def _check_vectors(name: str, vectors: Tensor, width: int) -> None:
    if vectors.dim() != 2 or vectors.shape[1] != width or not vectors.is_floating_point():
        raise ArgumentError(
            f"vectors: {name} have shape {tuple(vectors.shape)} and dtype {vectors.dtype}, allowed is a "
            f"floating (N, d_key={width})"
        )
    if not bool(vectors.isfinite().all()):
        raise ArgumentError(f"vectors: {name} hold infinite or undefined numbers, allowed are finite ones")
