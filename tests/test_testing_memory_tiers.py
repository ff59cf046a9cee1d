"""The suite of memory tiers passes correct tiers and catches each of these faults."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.memory import Report, Retrieved, Stats
from helix_kernel.testing.faults import caught_by
from helix_kernel.testing.memory_keys import keys_of, values_of
from helix_kernel.testing.memory_tiers import MemoryTierSuite

COUNTERS = ("written", "queries", "evicted", "merged", "next_id", "last_time")


class Rows:
    """Keys and values in rows, the oldest given up first; each fault below breaks one thing."""

    d_key, d_value = 8, 5

    def __init__(self, capacity=None):
        self.capacity = capacity
        self.keys, self.values = torch.zeros(0, self.d_key), torch.zeros(0, self.d_value)
        self.ids = torch.zeros(0, dtype=torch.int64)
        self.written = self.queries = self.evicted = self.merged = self.next_id = 0
        self.last_time = float("-inf")

    def write(self, keys, values, *, time):
        self.check(keys, values, time)
        self.last_time = time
        ids = torch.arange(self.next_id, self.next_id + len(keys))
        self.next_id += len(keys)
        self.written += len(keys)
        self.keys = torch.cat([self.keys, keys])
        self.values = torch.cat([self.values, values])
        self.ids = torch.cat([self.ids, ids])
        self.evict()
        return ids

    def check(self, keys, values, time):
        if keys.shape[1:] != (self.d_key,) or values.shape != (len(keys), self.d_value):
            raise ArgumentError("keys and values do not fit")
        if time < self.last_time:
            raise ArgumentError(f"time is {time}, allowed is >= {self.last_time}")

    def evict(self):
        if self.capacity is not None and len(self.ids) > self.capacity:
            self.evicted += len(self.ids) - self.capacity
            self.keep(slice(-self.capacity, None))

    def keep(self, rows):
        self.keys, self.values, self.ids = self.keys[rows], self.values[rows], self.ids[rows]

    def read(self, queries, k):
        if k < 1 or queries.shape[1:] != (self.d_key,):
            raise ArgumentError("k or queries do not fit")
        self.queries += len(queries)
        # From the latest to the earliest, so that a stable sort puts the later of two equals first. Sums are
        # taken row by row: what stands beside a query must not change how its products are rounded.
        likeness = (queries[:, None] * self.keys.flip(0)).sum(-1)
        scores, rows = likeness.sort(dim=-1, descending=True, stable=True)
        rows = len(self.ids) - 1 - rows[:, :k]
        return self.padded(self.values[rows], scores[:, :k], self.ids[rows], k)

    def padded(self, values, scores, ids, k):
        missing = k - ids.shape[1]
        if missing > 0:
            n = len(ids)
            values = torch.cat([values, torch.zeros(n, missing, self.d_value)], 1)
            scores = torch.cat([scores, torch.full((n, missing), float("-inf"))], 1)
            ids = torch.cat([ids, torch.full((n, missing), -1)], 1)
        return Retrieved(values=values, scores=scores, ids=ids)

    def consolidate(self):
        return Report()

    def state(self):
        tensors = {"keys": self.keys.clone(), "values": self.values.clone(), "ids": self.ids.clone()}
        return tensors | {name: getattr(self, name) for name in COUNTERS}

    def load_state(self, state):
        for name, value in state.items():
            setattr(self, name, value.clone() if isinstance(value, torch.Tensor) else value)

    def stats(self):
        return Stats(
            entries=len(self.ids),
            written=self.written,
            queries=self.queries,
            merged=self.merged,
            evicted=self.evicted,
            n_bytes=self.keys.nbytes + self.values.nbytes + self.ids.nbytes,
        )


class Forgetful(Rows):
    """Removes its earliest entry when it consolidates, and says so."""

    def consolidate(self):
        removed = int(self.ids[0])
        self.evicted += 1
        self.keep(slice(1, None))
        return Report(removed=(removed,))


class Ends(Rows):
    """Keys of symbols, found by how long an end they share with the query."""

    key_dtype, value_dtype = torch.uint8, torch.int64

    def __init__(self, capacity=None):
        super().__init__(capacity)
        self.keys, self.values = self.keys.to(torch.uint8), self.values.to(torch.int64)

    def read(self, queries, k):
        if k < 1 or queries.shape[1:] != (self.d_key,):
            raise ArgumentError("k or queries do not fit")
        self.queries += len(queries)
        shared = (queries[:, None] == self.keys.flip(0)).flip(-1).cumprod(-1).sum(-1)
        scores, rows = shared.sort(dim=-1, descending=True, stable=True)
        rows = len(self.ids) - 1 - rows[:, :k]
        return self.padded(self.values[rows], scores[:, :k].float(), self.ids[rows], k)

    def padded(self, values, scores, ids, k):
        found = super().padded(values, scores, ids, k)
        return Retrieved(values=found.values.to(torch.int64), scores=found.scores, ids=found.ids)


class TestOfSymbols(MemoryTierSuite):
    def make_tier(self):
        return Ends()


class TestOfSymbolsBounded(MemoryTierSuite):
    def make_tier(self):
        return Ends(capacity=5)


class TestUnbounded(MemoryTierSuite):
    def make_tier(self):
        return Rows()


class TestBounded(MemoryTierSuite):
    def make_tier(self):
        return Rows(capacity=5)


class TestOfOneEntry(MemoryTierSuite):
    def make_tier(self):
        return Rows(capacity=1)


class TestForgetful(MemoryTierSuite):
    def make_tier(self):
        return Forgetful()


class LosesRowsOnLoading(Rows):
    def load_state(self, state):
        super().load_state(state)
        self.keep(slice(1, None))


class RestoresValuesRounded(Rows):
    def state(self):
        return super().state() | {"values": self.values.half().float()}


class LeavesScoresUnsorted(Rows):
    def read(self, queries, k):
        found = super().read(queries, k)
        order = [0, *range(1, k)[::-1]]
        return Retrieved(
            values=found.values[:, order], scores=found.scores[:, order], ids=found.ids[:, order]
        )


class FindsTheWorstFirst(Rows):
    def read(self, queries, k):
        return super().read(-queries, k)


class MixesQueries(Rows):
    def read(self, queries, k):
        return super().read(queries - queries.mean(0, keepdim=True), k)


class ForgetsTheTime(Rows):
    def check(self, keys, values, time):
        super().check(keys, values, max(time, self.last_time))


class ForgetsTheTimeInItsState(Rows):
    def state(self):
        return super().state() | {"last_time": float("-inf")}


class PrefersTheEarlier(Rows):
    def read(self, queries, k):
        self.queries += len(queries)
        scores, rows = (queries @ self.keys.T).sort(dim=-1, descending=True, stable=True)
        return self.padded(self.values[rows[:, :k]], scores[:, :k], self.ids[rows[:, :k]], k)


class OutgrowsItsCapacity(Rows):
    def evict(self):
        if self.capacity is not None and len(self.ids) > self.capacity + 2:
            super().evict()


class PadsWithTheLast(Rows):
    def padded(self, values, scores, ids, k):
        places = torch.arange(k).clamp(max=ids.shape[1] - 1)
        if not ids.shape[1]:
            return super().padded(values, scores, ids, k)
        return Retrieved(values=values[:, places], scores=scores[:, places], ids=ids[:, places])


class FailsWhenEmpty(Rows):
    def read(self, queries, k):
        found = super().read(queries, k)
        assert found.ids[0, 0] >= 0, "nothing is here"
        return found


class SharesItsState(Rows):
    def write(self, keys, values, *, time):
        if len(self.ids):
            self.keys[0] += 1
        return super().write(keys, values, time=time)

    def state(self):
        return super().state() | {"keys": self.keys}


class AddsToWhatWasHere(Rows):
    def load_state(self, state):
        old, old_values, ids = self.keys, self.values, self.ids
        super().load_state(state)
        self.keys, self.values = torch.cat([self.keys, old]), torch.cat([self.values, old_values])
        self.ids = torch.cat([self.ids, ids + 100])


class RemovesInSilence(Rows):
    def consolidate(self):
        self.keep(slice(1, None))
        return Report()


class RemovesAnotherThanItSays(Rows):
    def consolidate(self):
        first = int(self.ids[0])
        self.keep([0, *range(2, len(self.ids))])
        self.evicted += 1
        return Report(removed=(first,))


class CountsCallsInsteadOfKeys(Rows):
    def write(self, keys, values, *, time):
        before = self.written
        ids = super().write(keys, values, time=time)
        self.written = before + 1
        return ids


class KeepsNoCopy(Rows):
    def write(self, keys, values, *, time):
        ids = super().write(keys, values, time=time)
        self.values = values if len(values) == len(self.ids) else self.values
        return ids


class NormalizesInPlace(Rows):
    def write(self, keys, values, *, time):
        return super().write(keys.mul_(2).div_(keys.norm(dim=-1, keepdim=True)), values, time=time)


class HandsOutItsOwn(Rows):
    def read(self, queries, k):
        found = super().read(queries, k)
        if k == 1 and len(queries) == len(self.ids):
            return Retrieved(values=self.values[:, None], scores=found.scores, ids=found.ids)
        return found


class DrawsAtRandom(Rows):
    def write(self, keys, values, *, time):
        return super().write(keys + 0.01 * torch.randn_like(keys), values, time=time)


class TakesAnyShape(Rows):
    def check(self, keys, values, time):
        super().check(keys[:, :1].expand(-1, self.d_key), values[:1].expand(len(keys), -1), time)


class WritesOnlyTheLastOfMany(Rows):
    def write(self, keys, values, *, time):
        ids = super().write(keys, values, time=time)
        if len(keys) > 1:
            self.values[-len(keys)] = values[-1]
        return ids


class FindsByTheBeginning(Ends):
    def write(self, keys, values, *, time):
        return super().write(keys.flip(-1), values, time=time)


class TellsKeysApartByTheirLastSymbols(Ends):
    def write(self, keys, values, *, time):
        return super().write(self.cut(keys), values, time=time)

    def read(self, queries, k):
        return super().read(self.cut(queries), k)

    def cut(self, keys):
        return keys * (torch.arange(keys.shape[1]) >= 5).to(keys.dtype)


FAULTS = [
    (LosesRowsOnLoading, "test_a_state_restores_a_new_memory_to_the_bit", r"entries=12.*entries=11"),
    (RestoresValuesRounded, "test_a_state_restores_a_new_memory_to_the_bit", r"read\(\) gives values"),
    (LeavesScoresUnsorted, "test_scores_fall_and_no_entry_comes_twice", "scores do not fall"),
    (FindsTheWorstFirst, "test_a_key_that_was_written_finds_its_value_first", "its own is"),
    (MixesQueries, "test_each_query_is_answered_as_if_it_came_alone", "alone finds ids"),
    (ForgetsTheTime, "test_time_does_not_run_backwards", "takes a write at time 4"),
    (ForgetsTheTimeInItsState, "test_time_does_not_run_backwards", "a restored memory"),
    (PrefersTheEarlier, "test_of_equal_keys_the_later_comes_first", r"finds \[0, 1\]"),
    (PadsWithTheLast, "test_places_without_an_entry_come_last_and_are_marked", "k of 15 finds"),
    (FailsWhenEmpty, "test_an_empty_memory_finds_nothing", "nothing is here"),
    (SharesItsState, "test_a_state_is_a_copy", "changed that state"),
    (AddsToWhatWasHere, "test_loading_a_state_forgets_what_was_here", "what the memory held before"),
    (RemovesInSilence, "test_consolidation_loses_only_what_it_reports", "0 of 12 .* 11 are left"),
    (RemovesAnotherThanItSays, "test_consolidation_loses_only_what_it_reports", "entry 1 is not found"),
    (CountsCallsInsteadOfKeys, "test_counts_are_true", r"12 keys were written .* are \(1, 5\)"),
    (KeepsNoCopy, "test_what_is_written_is_copied_and_not_changed", "tensors were cleared"),
    (NormalizesInPlace, "test_what_is_written_is_copied_and_not_changed", "changed the keys"),
    (HandsOutItsOwn, "test_what_was_read_is_a_copy", "values that were read were cleared"),
    (DrawsAtRandom, "test_two_memories_that_hear_the_same_are_the_same", "drawn unseeded"),
    (TakesAnyShape, "test_wrong_arguments_are_refused", "raise ArgumentError"),
    (WritesOnlyTheLastOfMany, "test_many_keys_in_one_write_are_as_one_after_another", "of each differ"),
]


@pytest.mark.parametrize(("fault", "case", "says"), FAULTS, ids=[fault.__name__ for fault, _, _ in FAULTS])
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(suite_of(fault), case, says, right=suite_of(Rows), tmp_path=tmp_path)


@pytest.mark.parametrize("fault", [FindsByTheBeginning, TellsKeysApartByTheirLastSymbols])
def test_a_fault_of_a_tier_of_symbols_is_caught(tmp_path, fault):
    case = "test_a_key_that_was_written_finds_its_value_first"
    caught_by(suite_of(fault), case, "its own is", right=suite_of(Ends), tmp_path=tmp_path)


def test_keys_of_symbols_are_no_two_alike_and_share_ends():
    keys = keys_of(Ends(), 200, seed=0)
    assert keys.dtype == torch.uint8
    assert keys.shape == (200, 8)
    assert len(keys.unique(dim=0)) == 200
    assert len(keys[:, 2:].unique(dim=0)) < 200
    assert keys.equal(keys_of(Ends(), 200, seed=0))
    assert not keys.equal(keys_of(Ends(), 200, seed=2))


def test_values_are_of_the_dtype_that_a_tier_names():
    assert values_of(Rows(), 3, seed=1).dtype == torch.float32
    assert values_of(Ends(), 3, seed=1).dtype == torch.int64


def test_a_tier_that_outgrows_its_capacity_is_caught(tmp_path):
    small = [lambda: OutgrowsItsCapacity(capacity=5), lambda: Rows(capacity=5)]
    wrong, right = map(suite_of, small)
    case = "test_a_full_memory_keeps_to_its_capacity"
    caught_by(wrong, case, "holds 6 entries, its capacity is 5", right=right, tmp_path=tmp_path)


def test_cases_of_bounded_tiers_and_of_such_as_keep_equal_keys_apart_know_theirs():
    bounded, apart = "test_a_full_memory_keeps_to_its_capacity", "test_of_equal_keys_the_later_comes_first"
    assert suite_of(Rows)().left_out(bounded) == "tiers whose capacity is small"
    assert suite_of(lambda: Rows(capacity=5))().left_out(bounded) is None
    assert suite_of(Rows)().left_out(apart) is None
    assert (
        suite_of(lambda: Rows(capacity=1))().left_out(apart) == "tiers that keep entries of equal keys apart"
    )


def suite_of(make):
    return type("Suite", (MemoryTierSuite,), {"make_tier": lambda self: make()})
