"""The conformance suite of eviction policies: what every policy must do, whoever wrote it.

Subclass `EvictionSuite`, give it a policy, and pytest runs the rest::

    class TestLru(EvictionSuite):
        def make_policy(self, capacity):
            return Lru(capacity)
"""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import numpy as np

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.plain_state import copied, same, through_a_file
from helix_kernel.testing.suite import Suite, applies_when
from helix_topo.eviction.belady import Belady

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from helix_topo.eviction.protocol import Eviction


def _runs_online(suite: EvictionSuite) -> bool:
    return not suite.make_policy(2).offline


_online = applies_when("policies that need not know the future", _runs_online)


class EvictionSuite(Suite):
    """Pytest class of the protocol of eviction policies (`helix_topo.eviction.protocol`).

    A subclass overrides `make_policy`.

    Attributes:
        capacity: Of the memories that are played through.
        n_events: How many things happen in such a play.
    """

    capacity = 6
    n_events = 200

    def make_policy(self, capacity: int) -> Eviction:
        """Return a new policy for a memory of so many slots."""
        policy: Eviction = self.build(capacity=capacity)
        return policy

    def test_as_many_keys_as_fit_stay(self) -> None:
        keys = np.arange(self.capacity, dtype=np.uint64) * np.uint64(1 << 40)
        hits = self.make_policy(self.capacity).requested(np.tile(keys, 3))
        expected = np.repeat([False, True, True], self.capacity)
        assert (hits == expected).all(), (
            f"{self.capacity} keys in {self.capacity} slots, requested in turn, hit {hits.tolist()}"
            + self._see("policy.requested(list(range(6)) * 3)")
        )

    def test_a_hit_is_of_a_key_that_came_before_and_its_repetition_is_one(self) -> None:
        keys = self._trace()
        hits = self.make_policy(self.capacity).requested(keys)
        see = self._see("policy.requested(np.repeat(np.arange(9), 2))")
        assert hits.shape == keys.shape, f"{len(keys)} requests give {hits.shape} hits{see}"
        assert hits.dtype == np.bool_, f"hits are of dtype {hits.dtype}, allowed is bool{see}"
        new = np.ones(len(keys), dtype=np.bool_)
        new[np.unique(keys, return_index=True)[1]] = False
        assert not (hits & ~new).any(), "a key that never came is a hit" + see
        twice = self.make_policy(self.capacity).requested(np.repeat(keys, 2))[1::2]
        assert twice.all(), "a key is not in the memory right after it was requested" + see

    def test_no_more_hits_than_with_all_knowledge(self) -> None:
        keys = self._trace()
        hits = int(self.make_policy(self.capacity).requested(keys).sum())
        most = int(Belady(self.capacity).requested(keys).sum())
        assert hits <= most, (
            f"of {len(keys)} requests {hits} are hits, but {self.capacity} slots allow {most} at most"
        )

    def test_what_comes_with_requests_may_be_told(self) -> None:
        keys = self._trace()
        saved = np.linspace(-1, 2, len(keys))
        hits = self.make_policy(self.capacity).requested(keys, before=keys % 7, saved_bits=saved)
        assert hits.shape == keys.shape, f"with before and saved_bits {len(keys)} requests give {hits.shape}"

    @_online
    def test_requests_in_many_calls_are_as_in_one(self) -> None:
        keys = self._trace()
        at_once, apart = self.make_policy(self.capacity), self.make_policy(self.capacity)
        parts = np.concatenate([apart.requested(part) for part in np.array_split(keys, 13)])
        assert (at_once.requested(keys) == parts).all(), "13 calls of requested() give other hits than one"
        assert same(at_once.state(), apart.state()), "13 calls of requested() leave another state than one"

    @_online
    def test_what_gives_way_is_there(self) -> None:
        policy = self.make_policy(self.capacity)
        assert policy.victim(0.0) == -1, "of an empty memory something gives way" + self._see(
            "policy.victim(0.0)"
        )
        for time, held, slot in self._played(policy):
            assert slot in held, (
                f"at time {time:g} slot {slot} gives way, in use are {sorted(held)}" + self._see()
            )

    @_online
    def test_asking_what_gives_way_changes_nothing(self) -> None:
        policy = self.make_policy(self.capacity)
        policy.added(list(range(self.capacity)), 0.0)
        state = policy.state()
        answers = {policy.victim(1.0) for _ in range(3)}
        assert len(answers) == 1, f"asked three times, victim() gives {sorted(answers)}" + self._see()
        assert same(state, policy.state()), "victim() changed the state" + self._see()

    @_online
    def test_an_entry_recalled_again_and_again_outlives_those_never_recalled(self) -> None:
        policy = self.make_policy(self.capacity)
        policy.added(list(range(self.capacity)), 0.0)
        time = 0.0
        for _ in range(3 * self.capacity):
            time += 1.0
            policy.recalled([0], time)
            slot = policy.victim(time)
            assert slot != 0, "slot 0 gives way, the only one that is recalled at all" + self._see()
            policy.forgotten([slot])
            policy.added([slot], time)

    @_online
    def test_batches_are_as_one_after_another(self) -> None:
        at_once, apart = self.make_policy(self.capacity), self.make_policy(self.capacity)
        slots = [3, 0, 0, 5, 1]
        at_once.added(list(range(self.capacity)), 0.0)
        at_once.recalled(slots, 1.0)
        at_once.forgotten([2, 4])
        for slot in range(self.capacity):
            apart.added([slot], 0.0)
        for slot in slots:
            apart.recalled([slot], 1.0)
        for slot in (2, 4):
            apart.forgotten([slot])
        assert same(at_once.state(), apart.state()), "slots told at once and one by one leave two states"

    @_online
    def test_recalls_of_free_slots_are_passed_over(self) -> None:
        policy, other = self.make_policy(self.capacity), self.make_policy(self.capacity)
        for each in (policy, other):
            each.added([1], 0.0)
        policy.recalled([0, 4], 0.0)
        assert same(policy.state(), other.state()), "a recall of a free slot changed the state" + self._see()

    @_online
    def test_a_state_restores_a_new_policy_to_the_bit(self) -> None:
        policy, other = self.make_policy(self.capacity), self.make_policy(self.capacity)
        list(self._played(policy))
        list(self._played(other, seed=5))
        other.load_state(through_a_file(policy.state()))
        assert same(policy.state(), other.state()), "a policy and one restored from its state differ"
        ways = [[slot for _, _, slot in self._played(each, 1e6, full=True)] for each in (policy, other)]
        assert ways[0] == ways[1], f"a policy and one restored from its state go on differently: {ways}"

    @_online
    def test_a_state_and_a_copy_live_on_their_own(self) -> None:
        policy = self.make_policy(self.capacity)
        list(self._played(policy))
        state, other = policy.state(), copy.deepcopy(policy)
        before = copied(state)
        policy.recalled([0, 1], 1e6)
        assert same(state, before), "what a policy heard later changed a state taken before"
        assert same(other.state(), before), "what a policy heard changed a copy of it"

    @_online
    def test_wrong_slots_and_times_are_refused(self) -> None:
        wrong: list[tuple[str, tuple[Any, ...]]] = [
            ("added", ([self.capacity], 5.0)),
            ("recalled", ([-1], 5.0)),
            ("recalled", ([0], 4.0)),
            ("added", ([0], float("nan"))),
        ]
        for name, given in wrong:
            policy = self.make_policy(self.capacity)
            policy.added([0], 5.0)
            try:
                getattr(policy, name)(*given)
            except ArgumentError:
                continue
            told = f"{name}{given} after a time of 5 is taken; raise ArgumentError"
            raise AssertionError(told + self._see("policy.added([0], 5.0)", f"policy.{name}{given}"))

    def _trace(self) -> NDArray[np.uint64]:
        """Return requests of which some keys come often, some in bursts, and some once."""
        generator = np.random.default_rng(0)
        often = generator.zipf(1.3, 4 * self.n_events) % 40
        bursts = np.repeat(generator.integers(100, 1 << 62, self.n_events), 2)
        return generator.permutation(np.concatenate([often, bursts])).astype(np.uint64)

    def _played(self, policy: Eviction, start: float = 0.0, *, seed: int = 0, full: bool = False) -> Any:
        """Play a memory through; at each event yield what is in use and which slot would give way."""
        chance, time = random.Random(seed), start  # noqa: S311 - a play, no secret
        held = set(range(self.capacity)) if full else set[int]()
        for _ in range(self.n_events):
            time += chance.random()
            if held:
                yield time, set(held), policy.victim(time)
            free = sorted(set(range(self.capacity)) - held)
            if held and chance.random() < 0.6:
                slots = chance.choices(sorted(held), k=2)
                policy.recalled(slots, time, correct=chance.random() < 0.8)
            elif held and chance.random() < 0.1:
                slot = chance.choice(sorted(held))
                policy.forgotten([slot])
                held.remove(slot)
            elif free:
                policy.added(free[:1], time)
                held.add(free[0])
            else:
                slot = policy.victim(time)
                policy.forgotten([slot])
                policy.added([slot], time)
        # What goes on with a full memory begins with one.
        policy.added(sorted(set(range(self.capacity)) - held), time)

    def _see(self, *lines: str) -> str:
        made = self.how(f"make_policy({self.capacity})", capacity=self.capacity)
        return self.see(f"policy = {made}", *(lines or ("policy.added([0, 1], 0.0)", "policy.victim(1.0)")))
