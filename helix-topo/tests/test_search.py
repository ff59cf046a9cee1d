"""Tests of search/: exact.py against brute force, and approximate.py against exact.py."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch.nn.functional import normalize

from helix_topo.search import exact
from helix_topo.search.approximate import ApproximateIndex
from helix_topo.search.exact import nearest, ranked


@pytest.mark.parametrize("block", [7, 16_384])
@pytest.mark.parametrize("k", [1, 90])
def test_the_nearest_are_those_of_a_sort_by_score_then_by_age(monkeypatch, block, k):
    """In blocks smaller than k and its margin, too, and with rows that are free or alike."""
    monkeypatch.setattr(exact, "_KEYS", block)
    monkeypatch.setattr(exact, "_SCORES", 11 * block)
    keys, queries = _unit(80, seed=1), _unit(13, seed=2)
    keys[40:70:4] = keys[3]
    queries[5] = keys[3]
    ids = torch.randperm(80, generator=torch.Generator().manual_seed(3))
    ids[::5] = -1
    slots, scores = nearest(queries, keys, ids, k)
    for row, query in enumerate(queries.double()):
        exactly = (keys.double() @ query).float()
        order = sorted((i for i in range(80) if ids[i] >= 0), key=lambda i: (-exactly[i], -ids[i]))[:k]
        assert slots[row].tolist() == order + [-1] * (k - len(order))
        assert scores[row, : len(order)].tolist() == exactly[order].tolist()
        assert (scores[row, len(order) :] == -torch.inf).all()


def test_of_more_equal_keys_than_are_to_spare_the_latest_come_first():
    """In every block, whatever float32 makes of them there."""
    keys = _unit(1, seed=1).expand(40_000, 8).clone()
    keys[::3] = _unit(1, seed=4)
    ids = torch.randperm(40_000, generator=torch.Generator().manual_seed(3))
    slots, _ = nearest(keys[1:2], keys, ids, 4)
    like = torch.arange(40_000)[torch.arange(40_000) % 3 != 0]
    assert ids[slots[0]].tolist() == ids[like].sort(descending=True).values[:4].tolist()


def test_no_queries_no_keys_and_keys_of_zeros_are_answered():
    ids, nothing = torch.arange(3), torch.zeros(3, 8)
    assert [x.shape for x in nearest(nothing[:0], nothing, ids, 2)] == [(0, 2), (0, 2)]
    assert nearest(_unit(2), nothing[:0], ids[:0], 2)[0].tolist() == [[-1, -1]] * 2
    assert nearest(_unit(1), nothing, ids, 2)[0].tolist() == [[2, 1]]


def test_candidates_are_ranked_and_places_for_none_come_last():
    keys = torch.eye(4, 8)
    slots, scores = ranked(
        torch.tensor([[0.0, 1, 0, 2, 0, 0, 0, 0]]), torch.tensor([[0, -1, 1, 3]]), keys, torch.arange(4), 5
    )
    assert slots.tolist() == [[3, 1, 0, -1, -1]]
    assert scores.tolist() == [[2, 1, 0, -torch.inf, -torch.inf]]


def test_a_graph_finds_most_of_the_nearest_and_still_does_when_most_was_replaced():
    index, keys = ApproximateIndex(16), _unit(6000, 16)
    table, ids, clock = torch.zeros(1000, 16), torch.full((1000,), -1), torch.arange(6000)
    for start in range(0, 6000, 500):
        slots = torch.arange(start, start + 500) % 1000
        index.removed(slots[ids[slots] >= 0])
        table[slots], ids[slots] = keys[start : start + 500], clock[start : start + 500]
        index.added(slots, table[slots])
    queries = _unit(200, 16, seed=2)
    found, scores = index.find(queries, table, ids, 10)
    wanted, best = nearest(queries, table, ids, 10)
    share = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)) / 2000
    assert share > 0.95
    assert len(index) == 1000
    hit = found == wanted
    assert scores[hit].equal(best[hit])


def test_every_key_of_a_graph_finds_itself():
    index, keys = ApproximateIndex(16), _unit(2000, 16)
    index.added(torch.arange(2000), keys)
    assert index.find(keys, keys, torch.arange(2000), 1)[0][:, 0].equal(torch.arange(2000))
    assert index.find(keys[7:8], keys, torch.arange(2000), 3)[0][0, 0] == 7


@pytest.mark.parametrize("way", ["state", "deepcopy", "pickle"])
def test_a_graph_that_is_restored_goes_on_as_the_first(way):
    first, keys = ApproximateIndex(8), _unit(900)
    first.added(torch.arange(300), keys[:300])
    if way == "state":
        second = ApproximateIndex(8)
        second.load_state(first.state())
    else:
        second = copy.deepcopy(first) if way == "deepcopy" else pickle.loads(pickle.dumps(first))
    for index in (first, second):
        for start in range(300, 900, 100):
            slots = torch.arange(start, start + 100) % 300
            index.removed(slots)
            index.added(slots, keys[start : start + 100])
    left, right = first.state(), second.state()
    assert left is not None
    assert right is not None
    assert left.equal(right)


def test_a_graph_without_keys_finds_nothing_and_restores():
    index = ApproximateIndex(8)
    keys, ids = torch.zeros(4, 8), torch.full((4,), -1)
    assert index.find(_unit(2), keys, ids, 3)[0].tolist() == [[-1] * 3] * 2
    other = ApproximateIndex(8)
    other.added(torch.arange(2), _unit(2))
    other.load_state(index.state())
    assert len(other) == 0


def _unit(count: int, width: int = 8, *, seed: int = 0) -> torch.Tensor:
    return normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)))
