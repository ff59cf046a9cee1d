"""The hierarchy as a tier of its own, held to the suite, with what it finds where, and why."""

from __future__ import annotations

import pytest
import torch

from helix_kernel import default_kernel
from helix_kernel.errors import InputError
from helix_kernel.testing.memory_tiers import MemoryTierSuite

MOTIFS = {"use": "motifs", "budget": 1 << 20, "capacity": 9, "d_key": 4, "d_value": 1}
CYCLES = {"use": "cycles", "budget": 1 << 16}
CORES = {"use": "stable-cores", "capacity": 16, "alike": 0.9}


def make_tier(**tiers):
    return default_kernel().build("memory_tier", {"use": "hierarchy", **tiers})


class TestOfMotifs(MemoryTierSuite):
    def make_tier(self):
        return make_tier(motifs=MOTIFS)


class TestOfMotifsAndCycles(MemoryTierSuite):
    def make_tier(self):
        return make_tier(motifs=MOTIFS, cycles=CYCLES)


def going_round(n_rounds=4):
    """A hierarchy to which three entries were written in turn; a fourth came once."""
    tier = make_tier(motifs=MOTIFS, cycles=CYCLES)
    keys = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]], dtype=torch.uint8)
    values = torch.tensor([[10.0], [20.0], [30.0]])
    for turn in range(n_rounds):
        tier.write(keys, values, time=float(turn))
    tier.write(torch.tensor([[4, 4, 1, 1]], dtype=torch.uint8), torch.tensor([[40.0]]), time=float(n_rounds))
    tier.consolidate()
    return tier


def test_what_lies_on_a_cycle_is_found_before_what_only_ends_alike():
    found = going_round().find(torch.tensor([[1, 1, 1, 1]], dtype=torch.uint8), 4)[0]
    assert [float(find.value) for find in found[:1]] == [10.0]
    assert {float(find.value) for find in found[1:3]} == {20.0, 30.0}
    assert [find.tier for find in found[:3]] == ["cycles"] * 3
    assert "on a cycle" in found[1].why
    assert (found[3].tier, float(found[3].value)) == ("motifs", 40.0)


def test_a_budget_bounds_what_all_tiers_are_asked_for():
    query = torch.tensor([[1, 1, 1, 1]], dtype=torch.uint8)
    assert len(going_round().find(query, 4, budget=2)[0]) <= 2


class TestOfAll(MemoryTierSuite):
    def make_tier(self):
        return make_tier(motifs=MOTIFS, cycles=CYCLES, cores=CORES)


def lasting():
    """A hierarchy to which two entries were written in turn, ever longer after one another; a third once."""
    tier = make_tier(motifs=MOTIFS, cycles=CYCLES, cores=CORES)
    keys = torch.tensor([[1, 1, 1, 1], [2, 2, 2, 2]], dtype=torch.uint8)
    for time in (0, 4, 16, 64):
        tier.write(keys, torch.tensor([[10.0 + time], [20.0]]), time=float(time))
    tier.write(torch.tensor([[4, 4, 1, 1]], dtype=torch.uint8), torch.tensor([[40.0]]), time=65.0)
    tier.consolidate()
    return tier


def test_cores_are_asked_before_cycles_before_motifs():
    found = lasting().find(torch.tensor([[1, 1, 1, 1]], dtype=torch.uint8), 4)[0]
    assert [find.tier for find in found] == ["cores", "cycles", "cycles", "motifs"]
    assert [float(find.value) for find in found] == [10 + 84 / 4, 74, 20, 40]
    assert found[0].link == "S"
    assert found[0].why == "what lasts: 4 writings became this, whose key is like the query by 1"


def test_what_cores_find_is_paid_for_by_the_budget():
    query = torch.tensor([[1, 1, 1, 1]], dtype=torch.uint8)
    assert [find.tier for find in lasting().find(query, 1)[0]] == ["cores"]
    assert [find.tier for find in lasting().find(query, 2, budget=3)[0]] == ["cores", "cycles"]


def test_cores_find_only_what_lasts_and_is_alike():
    query = torch.tensor([[4, 4, 1, 1], [1, 1, 1, 3]], dtype=torch.uint8)
    assert not [find for row in lasting().find(query, 4) for find in row if find.tier == "cores"]


def test_a_reading_gives_ids_of_what_was_written():
    tier = make_tier(motifs=MOTIFS, cycles=CYCLES, cores=CORES)
    key = torch.tensor([[1, 1, 1, 1]], dtype=torch.uint8)
    ids = [tier.write(key, torch.ones(1, 1), time=float(4**turn)) for turn in range(4)]
    assert tier.read(key, 1).ids[0].equal(ids[-1])


def test_a_model_s_memory_has_cores_of_features():
    memory = make_tier(motifs=MOTIFS, cycles=CYCLES, cores=CORES, d_model=12)
    assert (memory.cores.d_key, memory.cores.d_value) == (12, 256)
    memory.write(torch.ones(1, 4, dtype=torch.uint8), torch.ones(1, 1), time=0.0)
    assert {find.tier for find in memory.find(torch.ones(1, 4, dtype=torch.uint8), 2)[0]} == {"cycles"}


def test_a_state_of_other_tiers_is_refused():
    state = make_tier(motifs=MOTIFS).state()
    with pytest.raises(InputError, match="cycles"):
        make_tier(motifs=MOTIFS, cycles=CYCLES).load_state(state)
