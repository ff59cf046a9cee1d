"""The suite of eviction policies passes a correct policy and catches each of these faults."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.faults import caught_by
from helix_topo.eviction.lru import Lru
from helix_topo.testing.evictions import EvictionSuite


class ForgetsHalf(Lru):
    def __init__(self, capacity):
        super().__init__(max(1, capacity // 2))


class HitsWhatNeverCame(Lru):
    def requested(self, keys, **more):
        hits = super().requested(keys, **more)
        hits[:] = True
        return hits


class HitsTooMuch(Lru):
    def __init__(self, capacity):
        super().__init__(capacity * 20)


class StartsAnewWithEachCall(Lru):
    def requested(self, keys, **more):
        self.load_state(Lru(self.capacity).state())
        return super().requested(keys, **more)


class EvictsTheFirstSlot(Lru):
    def victim(self, time):
        return 0 if super().victim(time) >= 0 else -1


class ForgetsWhenAsked(Lru):
    def victim(self, time):
        slot = super().victim(time)
        self.forgotten([slot] if slot >= 0 else [])
        return slot


class ForgetsRecalls(Lru):
    def recalled(self, slots, time, *, correct=True):
        self._checked(slots, time)


class HearsTheFirstOnly(Lru):
    def recalled(self, slots, time, *, correct=True):
        super().recalled(slots[:1], time, correct=correct)


class AddsWhatIsRecalled(Lru):
    def recalled(self, slots, time, *, correct=True):
        self.added(slots, time)


class RestoresWithoutOrder(Lru):
    def load_state(self, state):
        super().load_state({**state, "counters": torch.zeros(4, dtype=torch.int64)})


class SharesItsState(Lru):
    def state(self):
        return dict(self.named_buffers())


class TurnsTimeBack(Lru):
    def recalled(self, slots, time, *, correct=True):
        super().recalled(slots, max(time, float(self.clock)), correct=correct)


class TakesAnySlot(Lru):
    def added(self, slots, time):
        super().added([slot for slot in slots if slot < self.capacity], time)


FAULTS = [
    (ForgetsHalf, "test_as_many_keys_as_fit_stay", "6 keys in 6 slots"),
    (HitsWhatNeverCame, "test_a_hit_is_of_a_key_that_came_before_and_its_repetition_is_one", "never came"),
    (HitsTooMuch, "test_no_more_hits_than_with_all_knowledge", "but 6 slots allow"),
    (StartsAnewWithEachCall, "test_requests_in_many_calls_are_as_in_one", "other hits"),
    (EvictsTheFirstSlot, "test_an_entry_recalled_again_and_again_outlives_those_never_recalled", "slot 0"),
    (EvictsTheFirstSlot, "test_what_gives_way_is_there", r"slot 0 gives way, in use are \[1"),
    (ForgetsWhenAsked, "test_asking_what_gives_way_changes_nothing", "asked three times"),
    (ForgetsRecalls, "test_an_entry_recalled_again_and_again_outlives_those_never_recalled", "slot 0"),
    (HearsTheFirstOnly, "test_batches_are_as_one_after_another", "at once and one by one"),
    (AddsWhatIsRecalled, "test_recalls_of_free_slots_are_passed_over", "changed the state"),
    (RestoresWithoutOrder, "test_a_state_restores_a_new_policy_to_the_bit", "restored from its state differ"),
    (SharesItsState, "test_a_state_and_a_copy_live_on_their_own", "changed a state taken before"),
    (TurnsTimeBack, "test_wrong_slots_and_times_are_refused", r"recalled\(\[0\], 4.0\)"),
    (TakesAnySlot, "test_wrong_slots_and_times_are_refused", r"added\(\[6\], 5.0\)"),
]


@pytest.mark.parametrize(
    ("fault", "case", "says"), FAULTS, ids=[f"{fault.__name__}-{case[5:25]}" for fault, case, _ in FAULTS]
)
def test_a_fault_is_caught_by_the_case_meant_for_it(tmp_path, fault, case, says):
    caught_by(suite_of(fault), case, says, right=suite_of(Lru), tmp_path=tmp_path)


def test_cases_of_policies_in_use_are_left_out_where_the_future_must_be_known():
    class Knows(Lru):
        offline = True

    case = "test_what_gives_way_is_there"
    assert suite_of(Lru)().left_out(case) is None
    assert suite_of(Knows)().left_out(case) == "policies that need not know the future"


def test_a_policy_that_raises_something_else_is_no_refusal(tmp_path):
    class Crashes(Lru):
        def recalled(self, slots, time, *, correct=True):
            try:
                super().recalled(slots, time, correct=correct)
            except ArgumentError:
                raise IndexError("out of range") from None

    case = "test_wrong_slots_and_times_are_refused"
    caught_by(suite_of(Crashes), case, "out of range", right=suite_of(Lru), tmp_path=tmp_path)


def suite_of(policy):
    return type("Suite", (EvictionSuite,), {"make_policy": lambda self, capacity: policy(capacity)})
