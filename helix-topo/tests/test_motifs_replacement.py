"""Which contexts a full table of motifs keeps: what each rule says, and not what lies where."""

from __future__ import annotations

import pytest
import torch

from helix_topo.motifs.tier import Motifs

ORDER = 8


def noise(length, *, seed):
    return torch.randint(256, (length,), generator=torch.Generator().manual_seed(seed))


def known_after_a_flood(replace, *, said):
    """Return how much is known of a phrase that was said so often, noise between, before a flood of it."""
    motifs = Motifs(budget=1 << 20, orders=(ORDER,), replace=replace, capacity=16, min_count=1)
    phrase = noise(400, seed=0)
    for time in range(said):
        motifs.score(torch.cat([phrase, noise(10_000, seed=1 + time)]))
    motifs.score(noise(200_000, seed=99))
    found = motifs.advance(phrase[None], torch.tensor([[-1]]), write=False)
    return float((found.length[ORDER:] == ORDER).float().mean())


@pytest.mark.parametrize("replace", ["lfu", "fsrs"])
def test_what_came_often_outlasts_what_came_once(replace):
    assert known_after_a_flood(replace, said=30) > 0.9


def test_the_least_recently_used_gives_way_however_often_it_came():
    assert known_after_a_flood("lru", said=30) < 0.05


@pytest.mark.parametrize("replace", ["lru", "fsrs"])
def test_what_came_once_is_forgotten_in_a_flood(replace):
    assert known_after_a_flood(replace, said=1) < 0.05
