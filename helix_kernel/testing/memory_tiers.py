"""The conformance suite of memory tiers: what every tier must do, whoever wrote it.

Subclass `MemoryTierSuite`, give it a tier, and pytest runs the rest::

    class TestVectors(MemoryTierSuite):
        def make_tier(self):
            return Vectors(d_key=8, d_value=4)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helix_kernel.config.schema import schema_of
from helix_kernel.errors import ArgumentError
from helix_kernel.testing import memory_keys
from helix_kernel.testing.plain_state import copied, same, through_a_file
from helix_kernel.testing.suite import Suite, applies_when

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from helix_kernel.memory import MemoryTier, Retrieved

_N_MOST = 12
_FIELDS = ("ids", "scores", "values")


def _is_bounded(suite: MemoryTierSuite) -> bool:
    capacity = suite.make_tier().capacity
    return capacity is not None and capacity <= suite.largest_capacity


def _keeps_equal_keys(suite: MemoryTierSuite) -> bool:
    tier = suite.make_tier()
    if tier.capacity is not None and tier.capacity < 2:
        return False
    key, value = suite.keys(1), suite.values(1)
    return int(tier.write(key, value, time=0.0)[0]) != int(tier.write(key, value, time=1.0)[0])


class MemoryTierSuite(Suite):
    """Pytest class of the memory tier protocol (docs: "What each kind must be").

    A subclass overrides `make_tier`, and `keys` and `values` where the tier takes neither vectors nor, as its
    `key_dtype` tells, symbols. A tier that is bounded should be given a small capacity by an example, since
    only then it is filled.

    Attributes:
        d_key: Length of keys of tiers that are made with an option of that name.
        d_value: Length of their values.
        largest_capacity: Above it a tier is not filled.
    """

    d_key = 8
    d_value = 5
    largest_capacity = 1024

    def make_tier(self) -> MemoryTier:
        """Return a new, empty memory."""
        tier: MemoryTier = self.build(**self._widths())
        return tier

    def keys(self, count: int, *, seed: int = 0) -> Tensor:
        """Return keys (count, d_key), no two alike, that depend on the arguments only.

        They are of unit length, or rows of symbols where the tier's `key_dtype` is uint8.
        """
        return memory_keys.keys_of(self.make_tier(), count, seed=seed)

    def values(self, count: int, *, seed: int = 1) -> Tensor:
        """Return values (count, d_value) that depend on the arguments only."""
        return memory_keys.values_of(self.make_tier(), count, seed=seed)

    def test_a_key_that_was_written_finds_its_value_first(self) -> None:
        keys, values = self._pairs()
        tier = self.make_tier()
        ids = tier.write(keys, values, time=0.0)
        assert ids.shape == (len(keys),), f"write() of {len(keys)} keys gives ids of shape {tuple(ids.shape)}"
        assert (ids >= 0).any(), "an empty memory lets nothing in" + self._see("ids")
        found = tier.read(keys, 3)
        for row in range(len(keys)):
            if ids[row] >= 0:
                self._assert_found(found, row, int(ids[row]), values[row], "right after it was written")

    def test_scores_fall_and_no_entry_comes_twice(self) -> None:
        found = self._filled().read(self.keys(6, seed=2), 5)
        assert (found.scores[:, 1:] <= found.scores[:, :-1]).all(), (
            f"scores do not fall from place to place: {found.scores.tolist()}" + self._see("found.scores")
        )
        for row, ids in enumerate(found.ids.tolist()):
            real = [number for number in ids if number >= 0]
            assert len(set(real)) == len(real), f"query {row} found an entry twice: ids {ids}" + self._see(
                "found.ids"
            )

    def test_places_without_an_entry_come_last_and_are_marked(self) -> None:
        tier = self._filled()
        n_entries, k = tier.stats().entries, self._count() + 3
        found = tier.read(self.keys(2, seed=2), k)
        self._assert_shapes(found, 2, k)
        self._assert_empty_places(found, from_place=n_entries)

    def test_an_empty_memory_finds_nothing(self) -> None:
        found = self.make_tier().read(self.keys(2), 3)
        self._assert_shapes(found, 2, 3)
        self._assert_empty_places(found, from_place=0)

    def test_each_query_is_answered_as_if_it_came_alone(self) -> None:
        state, queries = self._filled().state(), self.keys(5, seed=2)
        together = self._restored(state).read(queries, 3)
        for row in range(len(queries)):
            alone = self._restored(state).read(queries[row : row + 1], 3)
            for name in _FIELDS:
                own, among = getattr(alone, name)[0], getattr(together, name)[row]
                assert _close(own, among), (
                    f"query {row} alone finds {name} {own.tolist()}, among others {among.tolist()}"
                    + self._see("tier.read(queries[:1], 3).ids, tier.read(queries, 3).ids[:1]")
                )

    def test_many_keys_in_one_write_are_as_one_after_another(self) -> None:
        keys, values = self._pairs()
        at_once, apart = self.make_tier(), self.make_tier()
        at_once.write(keys, values, time=0.0)
        for row in range(len(keys)):
            apart.write(keys[row : row + 1], values[row : row + 1], time=0.0)
        self._assert_alike(
            at_once,
            apart,
            "a write of many keys and a write of each differ",
            "at_once.stats(), apart.stats()",
        )

    def test_a_write_of_nothing_changes_nothing(self) -> None:
        tier, other = self._filled(), self._filled()
        ids = tier.write(self.keys(1)[:0], self.values(1)[:0], time=9.0)
        assert ids.shape == (0,), f"a write of no keys gives ids of shape {tuple(ids.shape)}"
        self._assert_alike(tier, other, "a write of no keys changed the memory")

    @applies_when("tiers that keep entries of equal keys apart", _keeps_equal_keys)
    def test_of_equal_keys_the_later_comes_first(self) -> None:
        key, values = self.keys(1), self.values(2)
        tier = self.make_tier()
        ids = [int(tier.write(key, values[i : i + 1], time=float(i))[0]) for i in range(2)]
        found = tier.read(key, 2).ids[0].tolist()
        assert found == ids[::-1], (
            f"one key was written at time 0 (id {ids[0]}) and at time 1 (id {ids[1]}); it finds {found}, "
            "and the later should come first"
        )

    @pytest.mark.parametrize("where", ["written", "restored"])
    def test_time_does_not_run_backwards(self, where: str) -> None:
        tier = self.make_tier()
        tier.write(self.keys(1), self.values(1), time=5.0)
        tier.write(self.keys(1, seed=3), self.values(1), time=5.0)
        if where == "restored":
            tier = self._restored(tier.state())
        try:
            tier.write(self.keys(1, seed=4), self.values(1), time=4.0)
        except ArgumentError:
            return
        raise AssertionError(
            f"a {where} memory that was last written at time 5 takes a write at time 4; raise ArgumentError, "
            "and keep the time in the state"
        )

    @applies_when("tiers whose capacity is small", _is_bounded)
    def test_a_full_memory_keeps_to_its_capacity(self) -> None:
        tier = self.make_tier()
        capacity = int(tier.capacity or 0)
        keys, values = self.keys(capacity + 7), self.values(capacity + 7)
        for number in range(0, len(keys), 3):
            tier.write(keys[number : number + 3], values[number : number + 3], time=float(number))
            assert tier.stats().entries <= capacity, (
                f"after {number + 3} keys the memory holds {tier.stats().entries} entries, its capacity is "
                f"{capacity}"
            )
        held = {int(i) for i in tier.read(keys, capacity + 7).ids.flatten() if i >= 0}
        assert len(held) <= capacity, f"{len(held)} entries can be found, the capacity is {capacity}"
        assert held, f"after {len(keys)} keys the memory finds nothing at all"

    def test_a_state_restores_a_new_memory_to_the_bit(self) -> None:
        """Through `torch.save` and back, as plain data; and what follows is the same, too."""
        tier = self._filled()
        tier.read(self.keys(2, seed=2), 3)
        other = self._restored(through_a_file(tier.state()))
        self._assert_alike(tier, other, "a memory and one restored from its state differ")
        for each in (tier, other):
            each.write(self.keys(2, seed=3), self.values(2, seed=4), time=50.0)
        self._assert_alike(tier, other, "a memory and one restored from its state go on differently")

    def test_a_state_is_a_copy(self) -> None:
        tier = self._filled()
        state = tier.state()
        before = copied(state)
        for each in (tier, self._restored(state)):
            each.write(self.keys(2, seed=3), self.values(2, seed=4), time=50.0)
            each.consolidate()
            assert same(state, before), (
                "what a memory did after state(), or after load_state() of it, changed that state"
                + self._see("state = tier.state()", "# write, and compare state with a copy of it")
            )

    def test_loading_a_state_forgets_what_was_here(self) -> None:
        tier, other = self._filled(), self.make_tier()
        other.write(self.keys(2, seed=5), self.values(2, seed=6), time=90.0)
        other.load_state(tier.state())
        self._assert_alike(tier, other, "load_state() leaves something of what the memory held before")

    def test_consolidation_loses_only_what_it_reports(self) -> None:
        keys, values = self._pairs()
        tier = self.make_tier()
        ids = tier.write(keys, values, time=0.0)
        before = tier.stats().entries
        report = tier.consolidate()
        gone = len(report.removed) + len(report.merged)
        assert tier.stats().entries == before - gone, (
            f"consolidate() reports that {gone} of {before} entries are no more, and {tier.stats().entries} "
            "are left" + self._see("tier.stats(), tier.consolidate(), tier.stats()")
        )
        found = tier.read(keys, 3)
        for row, entry in enumerate(ids.tolist()):
            if entry < 0 or entry in report.removed:
                continue
            first = int(found.ids[row, 0])
            assert first == report.merged.get(entry, entry), (
                f"after consolidate(), which reports neither, entry {entry} is not found by its key: "
                f"it finds {first}" + self._see("tier.consolidate()", "tier.read(keys, 3).ids[:, 0]")
            )
            if entry not in report.merged and entry not in report.merged.values():
                assert found.values[row, 0].equal(values[row]), f"consolidate() changed the value of {entry}"

    def test_counts_are_true(self) -> None:
        tier, keys, queries = self.make_tier(), self.keys(self._count()), self.keys(3, seed=2)
        assert (tier.stats().entries, tier.stats().written, tier.stats().queries) == (0, 0, 0), (
            f"a new memory counts {tier.stats()}"
        )
        tier.write(keys, self.values(len(keys)), time=0.0)
        tier.read(queries, 2)
        tier.read(queries[:2], 2)
        stats = tier.stats()
        told = (stats.written, stats.queries)
        assert told == (len(keys), 5), (
            f"{len(keys)} keys were written and 5 queries read; (written, queries) are {told}"
        )
        assert stats.entries + stats.merged + stats.evicted == stats.written, (
            f"entries, merged and evicted are not all that was written: {stats}" + self._see("tier.stats()")
        )
        found = tier.read(keys, len(keys) + 1).ids
        held = len({int(i) for i in found.flatten() if i >= 0})
        assert held == stats.entries, f"{held} entries can be found, stats() counts {stats.entries}"

    def test_what_is_written_is_copied_and_not_changed(self) -> None:
        tier, (keys, values) = self.make_tier(), self._pairs()
        given = keys.clone(), values.clone()
        ids = tier.write(*given, time=0.0)
        assert given[0].equal(keys), "write() changed the keys that it was given"
        assert given[1].equal(values), "write() changed the values that it was given"
        for tensor in given:
            tensor.zero_()
        queries = keys.clone()
        found = tier.read(queries, 1)
        assert queries.equal(keys), "read() changed the queries that it was given"
        row = (ids >= 0).tolist().index(True)
        self._assert_found(found, row, int(ids[row]), values[row], "after the caller's tensors were cleared")

    def test_what_was_read_is_a_copy(self) -> None:
        keys, values = self._pairs()
        tier = self.make_tier()
        ids = tier.write(keys, values, time=0.0)
        tier.read(keys, 1).values.zero_()
        row = (ids >= 0).tolist().index(True)
        self._assert_found(
            tier.read(keys, 1), row, int(ids[row]), values[row], "after values that were read were cleared"
        )

    def test_two_memories_that_hear_the_same_are_the_same(self) -> None:
        import torch

        torch.manual_seed(1)
        first = self._filled()
        torch.manual_seed(2)
        self._assert_alike(
            first, self._filled(), "two memories that were written alike differ: something is drawn unseeded"
        )

    @pytest.mark.parametrize("what", ["k of 0", "short queries", "short keys", "values missing"])
    def test_wrong_arguments_are_refused(self, what: str) -> None:
        tier, keys, values = self._filled(), self.keys(2), self.values(2)
        calls: dict[str, Callable[[], object]] = {
            "k of 0": lambda: tier.read(keys, 0),
            "short queries": lambda: tier.read(keys[:, :-1], 1),
            "short keys": lambda: tier.write(keys[:, :-1], values, time=50.0),
            "values missing": lambda: tier.write(keys, values[:1], time=50.0),
        }
        before = tier.stats()
        try:
            calls[what]()
        except ArgumentError:
            assert tier.stats() == before, f"{what}: the call was refused and counted all the same"
            return
        except Exception as error:
            raise AssertionError(
                f"{what}: {type(error).__name__}: {error}; raise ArgumentError with what is allowed"
            ) from error
        raise AssertionError(f"{what}: the memory takes it; raise ArgumentError with what is allowed")

    def _widths(self) -> dict[str, int]:
        known = {} if self.component is None else schema_of(self.component).options
        return {name: getattr(self, name) for name in ("d_key", "d_value") if name in known}

    def _count(self) -> int:
        return min(_N_MOST, self.make_tier().capacity or _N_MOST)

    def _pairs(self) -> tuple[Tensor, Tensor]:
        return self.keys(self._count()), self.values(self._count())

    def _filled(self) -> MemoryTier:
        """Return a memory that was written three times."""
        tier, (keys, values) = self.make_tier(), self._pairs()
        third = -(-len(keys) // 3)
        for number in range(0, len(keys), third):
            tier.write(keys[number : number + third], values[number : number + third], time=float(number))
        return tier

    def _restored(self, state: dict[str, Any]) -> MemoryTier:
        tier = self.make_tier()
        tier.load_state(state)
        return tier

    def _assert_found(self, found: Retrieved, row: int, entry: int, value: Tensor, when: str) -> None:
        see = self._see("tier.read(keys, 3).ids[:, 0], ids")
        first, best = int(found.ids[row, 0]), found.scores[row].max()
        assert first == entry, f"{when}, key {row} finds entry {first} first; its own is {entry}{see}"
        assert found.scores[row, 0] == best, f"{when}, key {row} finds its entry without the best score{see}"
        assert found.values[row, 0].equal(value), (
            f"{when}, key {row} finds {found.values[row, 0].tolist()}; written was {value.tolist()}{see}"
        )

    def _assert_shapes(self, found: Retrieved, n_queries: int, k: int) -> None:
        shapes = {name: tuple(getattr(found, name).shape[:2]) for name in _FIELDS}
        assert set(shapes.values()) == {(n_queries, k)}, (
            f"{n_queries} queries with k={k} give {shapes}; allowed is ({n_queries}, {k}, …) for each"
        )

    def _assert_empty_places(self, found: Retrieved, *, from_place: int) -> None:
        empty = found.ids < 0
        assert empty[:, from_place:].all(), (
            f"{from_place} entries are there, and k of {found.ids.shape[1]} finds {found.ids.tolist()}"
        )
        assert (found.ids[empty] == -1).all(), f"empty places have ids {found.ids[empty].tolist()}, not -1"
        assert (found.scores[empty] == float("-inf")).all(), (
            f"empty places have scores {found.scores[empty].tolist()}; allowed is -inf" + self._see("found")
        )
        assert not found.values[empty].any(), "empty places have values; allowed are zeros"

    def _assert_alike(self, first: MemoryTier, second: MemoryTier, message: str, *see: str) -> None:
        assert first.stats() == second.stats(), (
            f"{message}: stats() are {first.stats()} and {second.stats()}" + self._see(*see)
        )
        queries = self.keys(6, seed=2)
        left, right = first.read(queries, 4), second.read(queries, 4)
        for name in _FIELDS:
            a, b = getattr(left, name), getattr(right, name)
            assert _close(a, b), f"{message}: read() gives {name} {a.tolist()} and {b.tolist()}" + self._see(
                *see
            )

    def _see(self, *lines: str) -> str:
        if self.component is None:
            make = [f"suite = {type(self).__name__}()", "tier = suite.make_tier()"]
        else:
            make = [f"tier = {self.how('make_tier()', **self._widths())}"]
        return self.see(
            "from helix_kernel.testing.memory_keys import keys_of, values_of",
            *make,
            "keys = keys_of(tier, 12, seed=0)",
            "ids = tier.write(keys, values_of(tier, 12, seed=1), time=0.0)",
            "found = tier.read(keys_of(tier, 5, seed=2), 5)",
            *lines,
        )


def _close(first: Tensor, second: Tensor) -> bool:
    """Whether two are equal; scores may differ by the order in which a product is summed."""
    import torch

    if not first.is_floating_point():
        return first.equal(second)
    return first.shape == second.shape and torch.allclose(first, second, rtol=1e-5, atol=1e-6)
