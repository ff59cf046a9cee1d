"""The hierarchy as a tier of its own, held to the suite, with what it finds where, and why."""

from __future__ import annotations

import pytest
import torch

from helix_kernel import default_kernel
from helix_kernel.errors import InputError
from helix_kernel.testing.memory_tiers import MemoryTierSuite

MOTIFS = {"use": "motifs", "budget": 1 << 20, "capacity": 9, "d_key": 4, "d_value": 1}
CYCLES = {"use": "cycles", "budget": 1 << 16}


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


def test_a_state_of_other_tiers_is_refused():
    state = make_tier(motifs=MOTIFS).state()
    with pytest.raises(InputError, match="cycles"):
        make_tier(motifs=MOTIFS, cycles=CYCLES).load_state(state)
