"""Tests of the policies of eviction/, which run in compiled loops, against plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from helix_kernel.errors import ArgumentError, InputError
from helix_topo.eviction.belady import Belady
from helix_topo.eviction.fsrs import N_CLASSES, PER_OCTAVE, Fsrs
from helix_topo.eviction.lfu import Lfu
from helix_topo.eviction.lru import Lru
from helix_topo.eviction.tinylfu import TinyLfu
from helix_topo.ledger import Ledger
from helix_topo.testing.evictions import EvictionSuite


class TestLru(EvictionSuite):
    def make_policy(self, capacity):
        return Lru(capacity)


class TestLfu(EvictionSuite):
    def make_policy(self, capacity):
        return Lfu(capacity)


class TestTinyLfu(EvictionSuite):
    def make_policy(self, capacity):
        return TinyLfu(capacity)


class TestFsrs(EvictionSuite):
    def make_policy(self, capacity):
        return Fsrs(capacity)


class TestFsrsByTime(EvictionSuite):
    def make_policy(self, capacity):
        return Fsrs(capacity, initial=3.0, clock="time", w_evidence=0.5, w_context=1.0, w_phase=1.0)


class TestBelady(EvictionSuite):
    def make_policy(self, capacity):
        return Belady(capacity)


def lru(keys, capacity):
    held = {}
    for key in keys:
        yield key in held
        if key not in held and len(held) == capacity:
            del held[min(held, key=held.get)]
        held[key] = len(held) if not held else max(held.values()) + 1


def lfu(keys, capacity):
    held = {}
    for now, key in enumerate(keys):
        yield key in held
        if key not in held and len(held) == capacity:
            del held[min(held, key=held.get)]
        held[key] = (held[key][0] + 1 if key in held else 0, now)


def belady(keys, capacity):
    held = set()
    for now, key in enumerate(keys):
        yield key in held
        if key not in held and len(held) == capacity:
            rest = keys[now + 1 :]
            held.remove(max(held, key=lambda other: rest.index(other) if other in rest else len(keys)))
        held.add(key)


def fsrs(keys, capacity, ledger, before, saved, w_frequency):
    """The lowest retrievability of all slots, whose stabilities are rounded as the lists are."""
    slots = {}
    for now, key in enumerate(keys, 1):
        yield key in slots
        more = {"before": before[now - 1 : now], "saved_bits": saved[now - 1 : now]}
        if key in slots:
            ledger.recalled([slots[key]], now, **more)
            continue
        if len(slots) == capacity:
            place = np.round(np.log2(ledger.stability.numpy() / ledger.rule.initial) * PER_OCTAVE)
            overdue = (now - 1 - ledger.recalled_at.numpy()) / 2 ** (place / PER_OCTAVE)
            tied = np.flatnonzero(overdue > overdue.max() * (1 - 1e-12))
            victim = min(tied, key=lambda slot: place[slot])
            slots = {other: slot for other, slot in slots.items() if slot != victim}
        slots[key] = next(slot for slot in range(capacity) if slot not in slots.values())
        ledger.added([slots[key]], now)
        ledger.stability[slots[key]] *= 1 + w_frequency * min(14, keys[: now - 1].count(key))
        ledger.evidence.add_before(np.array([slots[key]]), before[now - 1 : now])


def trace(n=1500, seed=0):
    generator = np.random.default_rng(seed)
    walk = np.cumsum(generator.integers(-3, 4, n)) % 60
    return np.where(generator.random(n) < 0.5, walk, generator.zipf(1.4, n) % 90).tolist()


@pytest.mark.parametrize(("policy", "oracle"), [(Lru, lru), (Lfu, lfu), (Belady, belady)])
@pytest.mark.parametrize("capacity", [1, 2, 20])
def test_hits_are_those_of_the_definition(policy, oracle, capacity):
    keys = trace()
    assert policy(capacity).requested(keys).tolist() == list(oracle(keys, capacity))


@pytest.mark.parametrize(
    "weights", [{}, {"w_evidence": 0.5}, {"w_context": 2.0}, {"w_phase": 1.0}, {"w_frequency": 3.0}]
)
def test_fsrs_is_the_lowest_retrievability_of_a_ledger(weights):
    keys, capacity = trace(400), 15
    before = np.arange(400) * 7 % 90
    saved = np.random.default_rng(1).normal(size=400)
    weights = {"w_frequency": 0.0, **weights}
    policy = Fsrs(capacity, **weights)
    ledger = Ledger(capacity, policy.ledger.rule)
    expected = list(fsrs(keys, capacity, ledger, before, saved, weights["w_frequency"]))
    assert policy.requested(keys, before=before, saved_bits=saved).tolist() == expected
    assert policy.ledger.stability.numpy() == pytest.approx(ledger.stability.numpy(), rel=1e-9)
    assert policy.ledger.recalls.equal(ledger.recalls)
    assert policy.ledger.recalled_at.equal(ledger.recalled_at)


def test_fsrs_slot_by_slot_is_as_its_ledger():
    policy, ledger = Fsrs(4, initial=2.0, clock="time"), Ledger(4)
    ledger.rule = policy.ledger.rule
    for each in (policy, ledger):
        each.added([0, 1, 3], 1.0)
        each.recalled([1, 3, 1], 30.0)
        each.recalled([0], 31.0, correct=False)
        each.forgotten([3])
    assert policy.ledger.stability.numpy() == pytest.approx(ledger.stability.numpy())
    assert policy.victim(40.0) == int(np.where(ledger.stability > 0, ledger.retrievability(40.0), 2).argmin())
    assert policy.ledger.links.of(3) is None
    assert [policy.ledger.links.of(slot) for slot in (0, 1)] == ["U", "I"]


def test_a_stability_beyond_all_classes_is_in_the_last_one():
    policy = Fsrs(2, growth=1e6, clock="time", initial=1.0)
    policy.added([0, 1], 0.0)
    policy.recalled([0], 1e9)
    policy.recalled([0], 1e18)
    assert int(policy.list[0]) == N_CLASSES - 1
    assert policy.victim(2e18) == 1


def test_what_is_wrong_again_and_again_gives_way_from_the_first_class():
    policy = Fsrs(2, clock="time", initial=1.0)
    policy.added([0, 1], 0.0)
    for _ in range(12):
        policy.recalled([0], 1.0, correct=False)
    assert int(policy.list[0]) == 0
    assert policy.victim(1.5) == 0


def test_tiny_lfu_keeps_what_came_often_from_what_comes_once():
    """A scan through the memory, which makes a recency list forget everything."""
    often, scan = np.tile(np.arange(50), 20), np.arange(1000, 3000)
    keys = np.concatenate([often, scan, np.arange(50)])
    kept = [int(policy(100).requested(keys)[-50:].sum()) for policy in (TinyLfu, Lru)]
    assert kept == [49, 0], "all but the one in the window when the scan came"


def test_what_comes_back_often_is_stable_from_the_start():
    policy = Fsrs(2, initial=1.0, w_frequency=0.5)
    policy.requested([1, 2, 3, 1, 2, 3, 1])
    slot = int(policy.place[policy.place > 0].max()) - 1
    assert policy.ledger.stability.tolist()[slot] > policy.ledger.rule.initial
    assert Fsrs(2, w_frequency=0.0).sketch.numel() < policy.sketch.numel()


def test_tiny_lfu_forgets_old_counts():
    keys = np.concatenate([np.tile(np.arange(50), 20), np.tile(np.arange(100, 150), 60)])
    hits = TinyLfu(50, window=0.1).requested(keys)
    assert hits[-50:].mean() > 0.9


def test_belady_serves_no_memory_in_use():
    for tell in (
        lambda: Belady(2).added([0], 0.0),
        lambda: Belady(2).recalled([0], 0.0),
        lambda: Belady(2).forgotten([0]),
        lambda: Belady(2).victim(0.0),
    ):
        with pytest.raises(ArgumentError, match="must know in advance"):
            tell()
    with pytest.raises(InputError, match="of capacity 3, allowed is 2"):
        Belady(2).load_state(Belady(3).state())


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Lru(0), "capacity is 0"),
        (lambda: Fsrs(0), "capacity is 0"),
        (lambda: Belady(1 << 30), r"< 2\^30"),
        (lambda: TinyLfu(9, window=1.5), r"window is 1\.5"),
        (lambda: TinyLfu(9, sample=0), "sample is 0"),
        (lambda: Fsrs(9, growth=-1), "growth is -1"),
        (lambda: Fsrs(9, w_frequency=-1), "w_frequency is -1"),
        (lambda: Fsrs(9, counters=0), "counters is 0"),
        (lambda: Lru(3).requested([1, 2], before=[1]), r"before has shape \(1,\), allowed is .* \(2,\)"),
    ],
)
def test_what_is_out_of_range_is_refused(make, says):
    with pytest.raises(ArgumentError, match=says):
        make()


def test_a_state_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"older of the state has shape \(4,\), allowed is \(3,\)"):
        Lru(3).load_state(Lru(4).state())
