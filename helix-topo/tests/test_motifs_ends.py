"""Values by keys of symbols are found by the longest end that they share with a query."""

from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.testing.memory_tiers import MemoryTierSuite
from helix_topo.motifs.tier import Motifs

SMALL = 1 << 20


class TestMotifs(MemoryTierSuite):
    def make_tier(self):
        return Motifs(d_key=8, d_value=5, budget=SMALL)


class TestMotifsThatAreFull(MemoryTierSuite):
    def make_tier(self):
        return Motifs(d_key=8, d_value=5, budget=SMALL, capacity=7)


class TestMotifsByLongKeys(MemoryTierSuite):
    def make_tier(self):
        return Motifs(budget=SMALL, orders=(2, 5))


def keys(n, *, seed=0):
    return torch.randint(3, (n, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_what_is_found_is_what_naive_comparison_finds():
    memory, written = Motifs(d_key=6, budget=SMALL), keys(400)
    ids = memory.write(written, torch.arange(400.0)[:, None], time=0.0)
    last = {int(number): row for row, number in enumerate(ids)}
    queries = keys(50, seed=1)
    found = memory.read(queries, 9)
    for query, told, scores in zip(queries, found.ids.tolist(), found.scores.tolist(), strict=True):
        shared = {number: shared_end(query, written[row]) for number, row in last.items()}
        wanted = sorted(shared, key=lambda number: (-shared[number], -last[number]))[:9]
        wanted = [number for number in wanted if shared[number]]
        assert told == wanted + [-1] * (9 - len(wanted))
        assert scores[: len(wanted)] == [shared[number] for number in wanted]


def shared_end(a, b):
    return int((a == b).flip(0).cumprod(0).sum())


def test_a_key_that_is_written_again_keeps_its_id_and_gets_the_new_value():
    memory, key = Motifs(d_key=6, budget=SMALL), keys(1)
    first = memory.write(key, torch.tensor([[1.0]]), time=0.0)
    again = memory.write(key, torch.tensor([[2.0]]), time=1.0)
    assert first.equal(again)
    assert memory.read(key, 1).values.item() == 2
    assert (memory.stats().entries, memory.stats().merged) == (1, 1)


def test_what_was_recalled_outlasts_what_was_not():
    memory = Motifs(d_key=6, budget=SMALL, capacity=4)
    own, value = keys(1), torch.zeros(1, 1)
    for time in range(3):
        memory.write(own, value, time=float(time * 10))
    others = keys(40, seed=1)[(keys(40, seed=1) != own).any(1)].unique(dim=0)[:7]
    for time, other in enumerate(others):
        memory.write(other[None], value, time=30.0 + time)
    assert memory.stats().evicted == 4
    assert memory.read(own, 1).scores.item() == 6


def test_a_value_that_changes_makes_an_entry_less_stable():
    memory, key = Motifs(d_key=6, budget=SMALL), keys(1)
    for time, value in enumerate((1.0, 1.0, 2.0)):
        memory.write(key, torch.tensor([[value]]), time=float(time))
        told = float(memory.ends.stabilities[0])
        assert told == pytest.approx((1, 1.8414, 0.4 * 1.8414)[time], abs=1e-3)


def test_a_state_of_other_options_is_refused():
    with pytest.raises(InputError, match="with capacity=7, allowed is 4096"):
        Motifs(budget=SMALL).load_state(Motifs(budget=SMALL, capacity=7).state())


def test_all_that_the_tier_holds_is_within_its_budget():
    assert Motifs(budget=SMALL, capacity=5000).stats().n_bytes <= SMALL
    with pytest.raises(ArgumentError, match="give a larger budget"):
        Motifs(budget=SMALL, capacity=12_000)


def test_keys_of_another_dtype_are_refused():
    with pytest.raises(ArgumentError, match=r"torch.float32 .* allowed is torch.uint8"):
        Motifs(d_key=6, budget=SMALL).write(torch.zeros(1, 6), torch.zeros(1, 1), time=0.0)
