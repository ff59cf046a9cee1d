from __future__ import annotations

import math

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.memory import Retrieved
from helix_topo.retrieval import Rung, as_retrieved, retrieve


class Fixed:
    """Reads what it was told: for query q, (id, score) pairs; the value of an entry is its id, twice."""

    def __init__(self, table):
        self.table, self.asked = table, []

    def __call__(self, queries, k):
        self.asked.append((queries.tolist(), k))
        pairs = [(self.table.get(q, []) + [(-1, -math.inf)] * k)[:k] for q in queries.tolist()]
        ids = torch.tensor([[entry for entry, _ in row] for row in pairs])
        scores = torch.tensor([[score for _, score in row] for row in pairs])
        return Retrieved(ids=ids, scores=scores, values=ids.clamp(min=0)[..., None].expand(-1, -1, 2).float())


@pytest.fixture
def rungs():
    cores = Fixed({7: [(0, 0.9), (1, 0.2)]})
    cycles = Fixed({7: [(12, 0.5), (13, 0.4)], 8: [(14, 0.5)]})
    motifs = Fixed({7: [(12, 30.0), (15, 20.0)], 8: [(14, 9.0), (16, 8.0)], 9: [(17, 1.0)]})
    return [
        Rung(tier="cores", read=cores, entries="cores", least=0.5, link=lambda _: "S"),
        Rung(tier="cycles", read=cycles, entries="motifs", why=lambda entry, p: f"{entry} with p = {p:g}"),
        Rung(tier="motifs", read=motifs, entries="motifs", link=lambda entry: "I" if entry == 15 else "U"),
    ]


QUERIES = torch.tensor([7, 8, 9])


def told(found):
    return [[(find.tier, find.id) for find in row] for row in found]


def test_tiers_are_asked_in_turn_for_what_is_still_missing(rungs):
    assert told(retrieve(QUERIES, rungs, k=3)) == [
        [("cores", 0), ("cycles", 12), ("cycles", 13)],
        [("cycles", 14), ("motifs", 16)],
        [("motifs", 17)],
    ]
    assert rungs[2].read.asked == [([8, 9], 3)], "a query that lacks nothing is not asked again"


def test_no_entry_is_found_twice_and_tiers_of_other_entries_are_apart(rungs):
    found = retrieve(QUERIES, rungs, k=9)
    assert told(found)[0] == [("cores", 0), ("cycles", 12), ("cycles", 13), ("motifs", 15)]


def test_each_find_says_where_how_well_and_why(rungs):
    core, cycle, _, motif = retrieve(QUERIES[:1], rungs, k=9)[0]
    assert (core.link, cycle.link, motif.link) == ("S", "U", "I")
    assert [find.why for find in (core, cycle, motif)] == ["score 0.9", "12 with p = 0.5", "score 20"]
    assert [find.score for find in (cycle, motif)] == [0.5, 20.0]
    assert motif.value.tolist() == [15, 15]


@pytest.mark.parametrize(
    ("budget", "asked"), [(1, [1, 0, 0]), (3, [3, 0, 0]), (4, [3, 1, 0]), (8, [3, 3, 2]), (99, [3, 3, 3])]
)
def test_the_budget_bounds_the_places_that_are_asked_for(rungs, budget, asked):
    found = retrieve(QUERIES, rungs, k=3, budget=budget)
    assert [sum(k for _, k in rung.read.asked) for rung in rungs] == asked
    assert all(len(row) <= min(3, budget) for row in found)


def test_as_one_reading_scores_fall_and_places_without_a_find_are_marked(rungs):
    found = retrieve(QUERIES, rungs, k=3)
    read = as_retrieved(found, 4, tiers=["cores", "cycles", "motifs"], empty=torch.zeros(2))
    assert read.ids.tolist() == [[0, 12, 13, -1], [14, 16, -1, -1], [17, -1, -1, -1]]
    assert (read.scores[:, 1:] <= read.scores[:, :-1]).all()
    assert read.scores[0].floor().tolist() == [2, 1, 1, -math.inf]
    assert read.values[0, 1].tolist() == [12, 12]
    assert not read.values[read.ids < 0].any()
    assert read.scores[1, 0].item() == pytest.approx(1 + 0.5 + math.atan(0.5) / math.pi)


@pytest.mark.parametrize("options", [{"k": 0}, {"k": 2, "budget": 0}])
def test_nothing_asked_for_is_refused(rungs, options):
    with pytest.raises(ArgumentError, match="numbers >= 1"):
        retrieve(QUERIES, rungs, **options)
