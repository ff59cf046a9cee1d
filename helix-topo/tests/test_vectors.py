"""Tests of vectors.py and free_slots.py."""

from __future__ import annotations

import copy
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError, ConfigError, InputError
from helix_kernel.testing.memory_tiers import MemoryTierSuite
from helix_topo.free_slots import FreeSlots
from helix_topo.vectors import Vectors


class TestExact(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=20)


class TestApproximate(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=20, search="approximate")


class TestMerging(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=20, merge_above=0.999)


class TestByTheClosedForm(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=20, stability="closed-form")


class TestOfOneEntry(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=1, search="approximate")


def test_keys_of_any_length_are_compared_by_their_cosine():
    memory = _memory()
    ids = memory.write(torch.tensor([[3.0, 0.0], [0.0, 0.5]]), _values(2), time=0.0)
    found = memory.read(torch.tensor([[1.0, 10.0]]), 2)
    assert found.ids.tolist() == [ids.flip(0).tolist()]
    assert found.scores[0].tolist() == pytest.approx([10 / math.sqrt(101), 1 / math.sqrt(101)])


def test_the_order_of_writing_changes_no_score():
    keys, values, queries = _keys(40), _values(40), _keys(9, seed=5)
    forwards, backwards = _memory(8, capacity=64), _memory(8, capacity=64)
    forwards.write(keys, values, time=0.0)
    backwards.write(keys.flip(0), values.flip(0), time=0.0)
    one, other = forwards.read(queries, 6), backwards.read(queries, 6)
    assert one.scores.equal(other.scores)
    assert one.values.equal(other.values)


def test_what_is_least_likely_to_be_recalled_gives_way():
    """Read, told of as right, told of as wrong, and left alone since: the last two go."""
    memory = _memory(capacity=4)
    ids = memory.write(_angles(0, 40, 80, 160), _values(4), time=0.0)
    memory.write(_angles(0)[:0], _values(0), time=5.0)
    memory.read(_angles(0), 1)
    memory.recalled(ids[1:3], correct=torch.tensor([True, False]))
    first = memory.write(_angles(200), _values(1), time=6.0)
    assert _held(memory) == {*ids[:3].tolist(), int(first[0])}
    second = memory.write(_angles(240), _values(1), time=6.0)
    assert _held(memory) == {*ids[:2].tolist(), int(first[0]), int(second[0])}
    assert memory.stats().evicted == 2


@pytest.mark.parametrize(("stability", "gone"), [("half-life", 1), ("closed-form", 0)])
def test_by_the_closed_form_what_saved_bits_stays_though_it_was_recalled_less(stability, gone):
    memory = _memory(capacity=2, stability=stability)
    ids = memory.write(_angles(0, 90), _values(2), time=0.0)
    right = torch.tensor([True])
    memory.recalled(ids[1:], correct=right, saved_bits=torch.tensor([3.0]), before=torch.tensor([7]))
    for time in (8.0, 20.0):
        memory.write(_angles(0)[:0], _values(0), time=time)
        memory.recalled(ids[:1], correct=right)
    new = memory.write(_angles(180), _values(1), time=20.0)
    assert _held(memory) == {int(ids[1 - gone]), int(new)}


def test_by_the_closed_form_a_consolidation_classes_anew():
    memory = _memory(stability="closed-form", decay=0.1)
    memory.write(_angles(0), _values(1), time=0.0)
    memory.write(_angles(90), _values(1), time=9.0)
    memory.consolidate()
    assert memory.ledger.links.count() == {"U": 1, "I": 1, "S": 0}


def test_a_state_of_another_form_of_stability_is_refused():
    state = _memory(stability="closed-form").state()
    with pytest.raises(InputError, match="stability='closed-form', allowed is 'half-life'"):
        _memory().load_state(state)


def test_many_that_give_way_at_once_are_those_that_would_one_by_one():
    keys, values = _keys(60), _values(60)
    at_once, apart = (_memory(8, capacity=20) for _ in range(2))
    for memory in (at_once, apart):
        memory.write(keys[:20], values[:20], time=0.0)
        memory.write(keys[:0], values[:0], time=3.0)
        memory.read(keys[3:9], 1)
    at_once.write(keys[20:], values[20:], time=4.0)
    for row in range(20, 60):
        apart.write(keys[row : row + 1], values[row : row + 1], time=4.0)
    assert at_once.ids.equal(apart.ids)
    assert at_once.keys.equal(apart.keys)


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_a_consolidation_removes_what_is_faint_and_says_what(search):
    memory = _memory(8, capacity=9, search=search, forget_below=0.5)
    ids = memory.write(_keys(6), _values(6), time=0.0)
    memory.write(_keys(3, seed=4), _values(3), time=20.0)
    report = memory.consolidate()
    assert report.removed == tuple(ids.tolist())
    stats = memory.stats()
    assert (stats.entries, stats.evicted, stats.written) == (3, 6, 9)
    assert (memory.read(_keys(6), 9).ids >= 0).sum(1).tolist() == [3] * 6
    memory.write(_keys(6), _values(6), time=21.0)
    assert memory.stats().entries == 9
    assert (memory.read(_keys(6), 1).scores > 0.999999).all()


def test_reading_in_eval_mode_leaves_no_trace():
    memory = _memory(8, capacity=9).eval()
    memory.write(_keys(6), _values(6), time=0.0)
    before = {name: table.clone() for name, table in memory.state_dict().items()}
    assert (memory.read(_keys(6), 1).scores > 0.999999).all()
    assert all(table.equal(before[name]) for name, table in memory.state_dict().items())
    memory.train().read(_keys(6), 1)
    assert memory.stats().queries == 6
    assert memory.ledger.recalls[:6].tolist() == [1] * 6


def test_a_likeness_below_recall_above_recalls_nothing():
    memory = _memory(recall_above=0.95)
    memory.write(_angles(0, 90), _values(2), time=0.0)
    memory.read(_angles(30, 85), 1)
    assert memory.ledger.recalls[:2].tolist() == [0, 1]


def test_more_keys_than_the_capacity_in_one_write_leave_the_last():
    memory = _memory(8, capacity=5, search="approximate")
    keys, values = _keys(23), _values(23)
    ids = memory.write(keys, values, time=0.0)
    assert len(set(ids.tolist())) == 23
    found = memory.read(keys[-5:], 1)
    assert found.ids[:, 0].equal(ids[-5:])
    assert found.values[:, 0].equal(values[-5:])
    assert memory.stats().evicted == 18


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_like_keys_become_one_entry_whose_value_is_their_mean(search):
    """In one write, and over writes: the key that came first stays."""
    memory = _memory(capacity=8, merge_above=0.99, search=search)
    values = _values(5)
    first = memory.write(_angles(0, 90, 3), values[:3], time=0.0)
    then = memory.write(_angles(-2, 180), values[3:], time=1.0)
    assert [int(first[2]), int(then[0])] == [int(first[0])] * 2
    found = memory.read(_angles(0, 90, 180), 1)
    expected = torch.stack([values[[0, 2, 3]].mean(0), values[1], values[4]])
    assert torch.allclose(found.values[:, 0], expected, atol=1e-6)
    assert found.scores[0, 0] == 1
    stats = memory.stats()
    assert (stats.entries, stats.merged, stats.written) == (3, 2, 5)


def test_merging_in_one_write_is_as_in_many_where_entries_give_way_meanwhile():
    keys = normalize(_keys(1, seed=9) + 0.8 * _keys(120))
    values = _values(120)
    at_once, apart = (_memory(8, capacity=7, merge_above=0.9) for _ in range(2))
    at_once.write(keys[:30], values[:30], time=0.0)
    at_once.write(keys[30:], values[30:], time=0.0)
    for row in range(120):
        apart.write(keys[row : row + 1], values[row : row + 1], time=0.0)
    stats = at_once.stats()
    assert stats == apart.stats()
    assert stats.merged > 10
    assert stats.evicted > 70
    assert at_once.values.equal(apart.values)
    assert at_once.ids.equal(apart.ids)


def test_entries_that_are_no_more_are_passed_over_when_told_of():
    memory = _memory(capacity=1)
    gone = memory.write(_angles(0), _values(1), time=0.0)
    memory.write(_angles(90), _values(1), time=1.0)
    memory.recalled(torch.cat([gone, torch.tensor([-1])]), correct=torch.tensor([False, True]))
    assert memory.stats().entries == 1


@pytest.mark.parametrize("search", ["exact", "approximate"])
def test_a_state_dict_holds_the_memory(search):
    memory, other = (_memory(8, capacity=30, search=search) for _ in range(2))
    other.write(_keys(9, seed=7), _values(9), time=90.0)
    memory.write(_keys(50), _values(50), time=4.0)
    other.load_state_dict(memory.state_dict())
    one, two = (each.read(_keys(9, seed=3), 4) for each in (memory, other))
    assert one.ids.equal(two.ids)
    assert one.values.equal(two.values)
    new = [each.write(_keys(3, seed=8), _values(3), time=4.0) for each in (memory, other)]
    assert new[0].equal(new[1])
    with pytest.raises(ArgumentError, match=r"allowed is a finite one from 4\.0"):
        other.write(_keys(1), _values(1), time=3.0)


def test_a_copy_lives_on_its_own():
    memory = _memory(8, capacity=30, search="approximate")
    memory.write(_keys(20), _values(20), time=0.0)
    other = copy.deepcopy(memory)
    memory.write(_keys(20, seed=1), _values(20), time=1.0)
    assert other.stats().entries == 20
    assert (other.read(_keys(20), 1).scores > 0.999999).all()


def test_a_model_that_is_cast_leaves_its_memory_as_it_is():
    memory = _memory(8, capacity=30)
    memory.write(_keys(4), _values(4), time=123456.789)
    torch.nn.Sequential(memory).to(torch.bfloat16)
    assert memory.read(_keys(4).bfloat16(), 1).values[:, 0].equal(_values(4))
    with pytest.raises(ArgumentError, match=r"from 123456\.789"):
        memory.write(_keys(4), _values(4), time=123456.0)


def test_a_consolidation_that_fails_leaves_the_old_memory(monkeypatch):
    memory = _memory(8, capacity=30, search="approximate")
    memory.write(_keys(20), _values(20), time=0.0)

    class Fails(type(memory._index)):
        def added(self, slots: torch.Tensor, keys: torch.Tensor) -> None:
            super().added(slots[:3], keys[:3])
            raise KeyboardInterrupt

    monkeypatch.setattr(memory, "_make_index", lambda: Fails(8))
    with pytest.raises(KeyboardInterrupt):
        memory.consolidate()
    assert (memory.read(_keys(20), 1).scores > 0.999999).all()
    memory.write(_keys(5, seed=2), _values(5), time=1.0)
    assert memory.stats().entries == 25


def test_bytes_are_those_of_all_tables_and_of_the_graph_and_are_bounded():
    memory = _memory(8, capacity=30)
    whole = sum(table.nbytes for table in memory.state_dict().values())
    assert memory.stats().n_bytes == whole > 30 * (4 * 8 + 4 * 3 + 8)
    graph = _memory(8, capacity=30, search="approximate")
    graph.write(_keys(30), _values(30), time=0.0)
    full = graph.stats().n_bytes
    assert full > whole + 30 * 4 * 8
    graph.write(_keys(300), _values(300), time=0.0)
    assert graph.stats().n_bytes < 1.5 * full


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"capacity": 0}, "capacity is 0, allowed is >= 1"),
        ({"d_key": 0}, "d_key is 0"),
        ({"forget_below": -0.1}, r"forget_below is -0\.1, allowed is 0 to 1"),
        ({"merge_above": 1.5}, r"merge_above is 1\.5, allowed is -1 to 1"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(ArgumentError, match=says):
        Vectors(**{"d_key": 2, "d_value": 3, **options})


def test_what_does_not_fit_is_refused():
    memory = _memory()
    with pytest.raises(ArgumentError, match=r"float64, allowed are \(1, 3\) and torch\.float32"):
        memory.write(_angles(0), _values(1).double(), time=0.0)
    with pytest.raises(ArgumentError, match="infinite or undefined"):
        memory.read(torch.tensor([[math.nan, 1.0]]), 1)
    with pytest.raises(ArgumentError, match="time is nan"):
        memory.write(_angles(0), _values(1), time=math.nan)
    with pytest.raises(InputError, match=r"with d_key=2, allowed is 8"):
        _memory(8).load_state(memory.state())
    assert memory.stats().written == 0


def test_it_is_built_by_config():
    table = {"use": "vectors", "capacity": 9, "search": "approximate", "merge_above": 0.9}
    memory = default_kernel().build("memory_tier", table, d_key=8, d_value=3)
    memory.write(_keys(20), _values(20), time=0.0)
    assert memory.stats().entries <= 9
    with pytest.raises(ConfigError, match="merge_above"):
        default_kernel().build("memory_tier", {**table, "merge_above": 2.0}, d_key=8, d_value=3)


def test_the_example_of_the_readme_runs():
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Vectors and the memory layer")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["found"].ids[:, 0].equal(names["ids"][:3])
    assert names["memory"].ledger.recalls[:3].tolist() == [2, 2, 1]


class Queue:
    """A policy by which the entry that came first gives way, whatever was recalled."""

    offline = False

    def __init__(self, capacity: int) -> None:
        self.slots: list[int] = []
        self.wrong: list[int] = []

    def added(self, slots: list[int], time: float) -> None:
        self.slots += slots

    def recalled(self, slots: list[int], time: float, *, correct: bool) -> None:
        self.wrong += [] if correct else slots

    def forgotten(self, slots: list[int]) -> None:
        self.slots = [slot for slot in self.slots if slot not in slots]

    def victim(self, time: float) -> int:
        return self.slots[0]

    def state(self) -> dict[str, list[int]]:
        return {"slots": list(self.slots)}

    def load_state(self, state: dict[str, list[int]]) -> None:
        self.slots = list(state["slots"])


class TestQueue(MemoryTierSuite):
    def make_tier(self) -> Vectors:
        return Vectors(8, 5, capacity=20, eviction=Queue)


@pytest.mark.parametrize("sizes", [[11], [4, 7], [1] * 11])
def test_a_policy_says_which_entry_gives_way_in_writes_of_any_size(sizes):
    """More keys than slots in one write: an entry of that write gives way to a later one of it."""
    memory = _memory(8, capacity=4, eviction=Queue, search="approximate")
    keys, values = _keys(11), _values(11)
    parts = zip(torch.split(keys, sizes), torch.split(values, sizes), strict=True)
    ids = torch.cat([memory.write(*part, time=0.0) for part in parts])
    memory.read(keys[7:8], 1)
    assert memory.read(keys, 1).ids[7:, 0].equal(ids[7:])
    new = memory.write(_keys(2, seed=5), _values(2), time=1.0)
    assert _held(memory) == {*ids[9:].tolist(), *new.tolist()}
    memory.recalled(new[:1], correct=torch.tensor([False]))
    assert memory._policy.wrong == [int(new[0]) % 4]
    stats = memory.stats()
    assert (stats.entries, stats.evicted, stats.written) == (4, 9, 13)


@pytest.mark.parametrize("name", ["fsrs", "lru", "lfu", "tinylfu"])
def test_every_policy_serves_by_config_and_goes_on_from_a_state_dict(name):
    table = {"use": "vectors", "capacity": 20, "eviction": {"use": name}}
    memory, other = (default_kernel().build("memory_tier", table, d_key=8, d_value=3) for _ in range(2))
    memory.write(_keys(40), _values(40), time=0.0)
    memory.read(_keys(40), 1)
    memory.write(_keys(50, seed=2), _values(50), time=1.0)
    stats = memory.stats()
    assert (stats.entries, stats.evicted) == (20, 70)
    other.load_state_dict(memory.state_dict())
    ids = [each.write(_keys(9, seed=3), _values(9), time=2.0) for each in (memory, other)]
    assert ids[0].equal(ids[1])
    assert _held(memory) == _held(other)


def test_a_policy_that_must_know_the_future_is_refused():
    offline = type("Offline", (Queue,), {"offline": True})
    with pytest.raises(ArgumentError, match="eviction Offline must know what will be asked for"):
        _memory(eviction=offline)


def test_of_free_slots_the_lowest_is_taken_first_whatever_was_given_back_when():
    slots = FreeSlots(torch.zeros(6, dtype=torch.bool))
    assert slots.take(5) == [0, 1, 2, 3, 4]
    slots.give_back([4, 1])
    assert len(slots) == 3
    restored = FreeSlots(torch.tensor([True, False, True, True, False, False]))
    assert slots.take(4) == restored.take(4) == [1, 4, 5]
    assert len(slots) == len(restored) == 0


def _memory(d_key: int = 2, **options: Any) -> Vectors:
    return Vectors(d_key, 3, **{"capacity": 16, **options})


def _held(memory: Vectors) -> set[int]:
    return set(memory.ids[memory.ids >= 0].tolist())


def _angles(*degrees: float) -> torch.Tensor:
    at = torch.tensor([math.radians(d) for d in degrees])
    return torch.stack([at.cos(), at.sin()], 1)


def _keys(count: int, *, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)))


def _values(count: int) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))
