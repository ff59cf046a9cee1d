from __future__ import annotations

import copy
from collections import Counter

import networkx as nx
import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_topo.graph import ARC_BYTES, TransitionGraph
from helix_topo.phases import phase


def drawn(seed, n_nodes=30, n=4000, n_symbols=3):
    """Arcs of a walk of uneven steps, with some places that are none."""
    rng = np.random.default_rng(seed)
    walk = (rng.geometric(0.2, n + 1).cumsum() + rng.integers(0, 3, n + 1)) % n_nodes
    walk[rng.random(n + 1) < 0.05] = -1
    return torch.from_numpy(walk[:-1]), torch.from_numpy(walk[1:]), torch.from_numpy(walk[1:] % n_symbols)


def counted(source, target, symbol):
    triples = zip(source.tolist(), target.tolist(), symbol.tolist(), strict=True)
    return Counter(triple for triple in triples if min(triple[:2]) >= 0)


def held(graph, **options):
    arcs = graph.arcs(**options)
    return dict(
        zip(
            zip(arcs.source.tolist(), arcs.target.tolist(), arcs.symbol.tolist(), strict=True),
            arcs.count.tolist(),
            strict=True,
        )
    )


def ring(*nodes, times=3):
    """Arcs around a ring, several times."""
    source = torch.tensor(nodes * times)
    return source, source.view(times, -1).roll(-1, 1).flatten()


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_a_dictionary(seed):
    graph = TransitionGraph(budget=1 << 17, ways=128)
    arcs = drawn(seed)
    for part in zip(*(column.split(700) for column in arcs), strict=True):
        assert graph.add(*part) == 0
    assert held(graph) == counted(*arcs)
    assert held(graph, least=9) == {arc: n for arc, n in counted(*arcs).items() if n >= 9}
    assert graph.counters.tolist() == [counted(*arcs).total(), 0, 0]


def test_in_a_full_bucket_the_lowest_count_gives_way_and_of_equals_the_oldest():
    graph = TransitionGraph(budget=3 * ARC_BYTES, ways=3)
    source, target = torch.tensor([1, 1, 2, 3]), torch.tensor([2, 2, 3, 4])
    assert graph.add(source, target) == 0
    assert graph.add(torch.tensor([4, 5]), torch.tensor([5, 6])) == 2
    assert held(graph) == {(1, 2, 0): 2, (4, 5, 0): 1, (5, 6, 0): 1}
    assert graph.counters.tolist() == [6, 2, 0]


@pytest.mark.parametrize("budget", [16 * ARC_BYTES, 5000, 70_001])
def test_a_table_keeps_to_its_budget(budget):
    graph = TransitionGraph(budget=budget)
    assert graph.n_bytes == sum(b.nbytes for name, b in graph.named_buffers() if name != "counters") <= budget
    rng = np.random.default_rng(0)
    graph.add(*torch.from_numpy(rng.integers(0, 10**12, (2, 20_000))))
    assert 0 < len(graph.arcs().count) <= budget // ARC_BYTES


def test_what_recurs_stays_where_much_else_passes():
    graph = TransitionGraph(budget=1000 * ARC_BYTES)
    rng = np.random.default_rng(0)
    for _ in range(20):
        graph.add(*ring(1, 2, 3, 4, times=2))
        graph.add(*torch.from_numpy(rng.integers(10, 10**12, (2, 2000))))
    arcs = graph.arcs(least=40)
    assert arcs.source.tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(3))
def test_arcs_on_cycles_and_their_components_are_those_of_networkx(seed):
    graph = TransitionGraph(budget=1 << 17, least=4)
    graph.add(*drawn(seed, n_nodes=150, n=2500, n_symbols=1))
    graph.analyse()
    strong = nx.DiGraph((a, b) for a, b, _ in held(graph, least=4))
    component = {n: c for c in map(frozenset, nx.strongly_connected_components(strong)) for n in c}
    cyclic = {(a, b) for a, b in strong.edges if component[a] == component[b]}
    arcs = graph.arcs()
    found = {
        (a, b): number
        for a, b, number in zip(
            arcs.source.tolist(), arcs.target.tolist(), arcs.component.tolist(), strict=True
        )
        if number >= 0
    }
    assert found.keys() == cyclic
    assert len(cyclic) not in (0, len(strong.edges))
    assert {(component[a], component[b]) for a, b in found} == {(component[a],) * 2 for a, b in cyclic}
    for node in strong.nodes:
        mates = component[node] - {node}
        assert graph.mates(node).tolist() == sorted(mates)
        assert (graph.component_of(node) >= 0) == any(node in arc for arc in cyclic)


def test_predictions_are_shares_of_the_counts_of_arcs_on_cycles():
    graph = TransitionGraph(budget=1 << 17, least=2)
    arcs = drawn(0, n_nodes=60, n=3000, n_symbols=5)
    graph.add(*arcs)
    graph.analyse()
    known = graph.arcs()
    nodes = torch.arange(-1, 62)
    share, total, core = graph.predict(nodes, 5)
    expected = torch.zeros(len(nodes), 5, dtype=torch.float64)
    for source, symbol, count, component in zip(
        known.source, known.symbol, known.count, known.component, strict=True
    ):
        if component >= 0:
            expected[source + 1, symbol] += count
    assert total.equal(expected.sum(1).long())
    torch.testing.assert_close(share.double(), expected / expected.sum(1, keepdim=True).clamp(min=1))
    on_cycle = known.component >= 0
    numbers = dict(zip(known.source[on_cycle].tolist(), known.core[on_cycle].tolist(), strict=True))
    assert [c for c, n in zip(core.tolist(), total.tolist(), strict=True) if n] == [
        numbers[node] for node, n in zip(nodes.tolist(), total.tolist(), strict=True) if n
    ]
    assert not total[[0, -1]].any()


def test_symbols_beyond_those_asked_for_are_left_out():
    graph = TransitionGraph()
    source, target = ring(1, 2)
    graph.add(source, target, target * 100)
    graph.analyse()
    share, total, _ = graph.predict(torch.tensor([1, 2]), 150)
    assert total.tolist() == [0, 3]
    assert share.sum(1).tolist() == [0, 1]


def test_what_was_counted_since_the_analysis_predicts_nothing_yet():
    graph = TransitionGraph()
    graph.add(*ring(1, 2))
    assert not graph.predict(torch.tensor([1]), 2)[1].any()
    graph.analyse()
    assert graph.predict(torch.tensor([1]), 2)[1].tolist() == [3]


def test_the_likeliest_are_those_of_a_search_over_all_simple_paths():
    graph = TransitionGraph(least=1)
    graph.add(*drawn(3, n_nodes=9, n=160, n_symbols=2))
    graph.analyse()
    arcs = graph.arcs()
    weights = Counter()
    for a, b, count, component in zip(
        *(column.tolist() for column in (arcs.source, arcs.target, arcs.count, arcs.component)), strict=True
    ):
        weights[a, b] += count if component >= 0 else 0
    out = Counter()
    for (a, _), count in weights.items():
        out[a] += count
    whole = nx.DiGraph(weights.keys())
    best = {}
    for node in set(whole) - {2}:
        paths = nx.all_simple_edge_paths(whole, 2, node)
        best[node] = max(np.prod([weights[arc] / out[arc[0]] for arc in path]) for path in paths)
    ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))
    found = graph.likeliest(2, 100)
    np.testing.assert_allclose([score for _, score in found], [score for _, score in ranked])
    assert {node for node, _ in found} == set(best)
    assert graph.likeliest(2, 3) == found[:3]


def test_a_gap_is_how_many_arcs_were_counted_since_the_last_time():
    graph = TransitionGraph()
    graph.add(torch.tensor([1, 2, -1, 1, 1]), torch.tensor([2, 1, 5, 2, 3]))
    graph.add(torch.tensor([5, 1]), torch.tensor([6, 2]))
    arcs = graph.arcs()
    gaps = dict(zip(zip(arcs.source.tolist(), arcs.target.tolist(), strict=True), arcs.gap, strict=True))
    assert gaps == {(1, 2): 3, (2, 1): 0, (1, 3): 0, (5, 6): 0}


def test_a_component_that_recurs_regularly_is_in_step_and_one_that_does_not_is_less():
    graph = TransitionGraph(least=2)
    graph.add(*ring(1, 2, 3, 4, times=5))
    rng = np.random.default_rng(0)
    for _ in range(6):
        for pair in rng.permutation([[7, 8], [8, 9], [9, 7]]).tolist():
            graph.add(*ring(100, 101, times=int(rng.integers(1, 20))))
            graph.add(*(torch.tensor([node]) for node in pair))
    graph.analyse()
    regular, irregular = (graph.component_of(node) for node in (1, 7))
    found = graph.synchrony()
    assert found.order[regular] == pytest.approx(1)
    assert found.mean[regular] == pytest.approx(phase(np.array([4])).item(), abs=1e-9)
    arcs = graph.arcs()
    phases = phase(arcs.gap[(arcs.source >= 7) & (arcs.source <= 9)])
    assert found.order[irregular] == pytest.approx(abs(np.exp(1j * phases).mean()))
    assert found.order[irregular] < 0.9


def test_the_phase_of_a_motif_is_that_of_its_last_recurrence():
    graph = TransitionGraph(least=1)
    both_ways = torch.tensor([1, 2, 1, 3])
    graph.add(both_ways, both_ways.roll(-1))
    graph.add(both_ways, both_ways.roll(-1))
    graph.add(torch.tensor([1]), torch.tensor([2]))
    graph.analyse()
    arcs = graph.arcs()
    last = {1: 4, 2: 4, 3: 4}
    assert arcs.gap.tolist() == [4, 4, 4, 4]
    graph.add(torch.tensor([1]), torch.tensor([2]))
    last[1] = 1
    expected = abs(np.exp(1j * phase(np.array(list(last.values())))).mean())
    assert graph.synchrony().order.tolist() == pytest.approx([expected])


def test_mates_follow_when_an_arc_of_a_cycle_gives_way():
    graph = TransitionGraph(budget=4 * ARC_BYTES, ways=4, least=2)
    graph.add(*ring(1, 2, 3, times=2))
    graph.analyse()
    assert graph.mates(1).tolist() == [2, 3]
    graph.add(torch.tensor([7, 7, 7, 8, 8, 8]), torch.tensor([8, 8, 8, 7, 7, 7]))
    newcomers = graph.arcs().component[graph.arcs().source >= 7]
    assert newcomers.tolist() == [-1, -1], "what takes the place of an arc on a cycle lies on none yet"
    other = TransitionGraph(budget=4 * ARC_BYTES, ways=4, least=2)
    other.load_state_dict(graph.state_dict())
    for node in (1, 2, 3):
        assert other.mates(node).tolist() == graph.mates(node).tolist()
        assert other.likeliest(node, 5) == graph.likeliest(node, 5)


def test_an_analysis_that_fails_changes_nothing(monkeypatch):
    graph = TransitionGraph()
    graph.add(*ring(1, 2, 3))
    graph.analyse()
    graph.add(*ring(4, 5))
    before = copy.deepcopy(graph.state_dict())
    monkeypatch.setattr("helix_topo.analysis._core_numbers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        graph.analyse()
    assert all(value.equal(graph.state_dict()[name]) for name, value in before.items())


def test_the_table_stays_in_the_hosts_memory_and_whole():
    graph = TransitionGraph()
    graph.add(*ring(1, 2))
    before = held(graph)
    torch.nn.Sequential(torch.nn.Linear(1, 1), graph).to("meta").half()
    assert held(graph) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [({"budget": 10}, "one bucket"), ({"ways": 0}, "ways and least"), ({"least": 0}, "ways and least")],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ArgumentError, match=message):
        TransitionGraph(**options)


def test_columns_of_different_shapes_are_refused():
    with pytest.raises(ArgumentError, match="one shape"):
        TransitionGraph().add(torch.tensor([1, 2]), torch.tensor([1]))
