from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from helix_topo.analysis import analysed, cycle_basis


def drawn(seed, n_nodes=40, n_arcs=70):
    """Arcs between nodes with large names, some of them loops and some twice."""
    rng = np.random.default_rng(seed)
    names = np.sort(rng.choice(10**12, n_nodes, replace=False))
    ends = rng.integers(0, n_nodes, (2, n_arcs))
    return names[ends[0]], names[ends[1]]


def networks(source, target):
    directed = nx.DiGraph(list(zip(source.tolist(), target.tolist(), strict=True)))
    undirected = nx.Graph(directed)
    undirected.remove_edges_from(list(nx.selfloop_edges(undirected)))
    return directed, undirected


@pytest.mark.parametrize("seed", range(8))
def test_components_are_those_of_networkx(seed):
    source, target = drawn(seed)
    directed, _ = networks(source, target)
    found = analysed(source, target)
    mine = {frozenset(found.nodes[found.component == c].tolist()) for c in np.unique(found.component)}
    assert mine == {frozenset(each) for each in nx.strongly_connected_components(directed)}


@pytest.mark.parametrize("seed", range(8))
def test_core_numbers_are_those_of_networkx(seed):
    source, target = drawn(seed, n_nodes=25, n_arcs=90)
    _, undirected = networks(source, target)
    found = analysed(source, target)
    numbers = dict(zip(found.nodes.tolist(), found.core.tolist(), strict=True))
    assert numbers == nx.core_number(undirected)
    assert max(numbers.values()) > min(numbers.values())


@pytest.mark.parametrize("seed", range(4))
def test_what_is_cyclic_lies_on_a_cycle(seed):
    source, target = drawn(seed)
    directed, _ = networks(source, target)
    on_one = {node for cycle in nx.simple_cycles(directed) for node in cycle}
    found = analysed(source, target)
    assert set(found.nodes[found.cyclic].tolist()) == on_one


def test_components_are_numbered_by_their_smallest_nodes():
    found = analysed(np.array([9, 1, 5, 3]), np.array([1, 9, 3, 5]))
    assert found.nodes.tolist() == [1, 3, 5, 9]
    assert found.component.tolist() == [0, 1, 1, 0]


def test_places_of_nodes_that_are_not_there_are_none():
    found = analysed(np.array([2, 4]), np.array([4, 6]))
    assert found.places(np.array([1, 2, 5, 6, 7])).tolist() == [-1, 0, -1, 2, -1]
    nothing = analysed(np.empty(0, np.int64), np.empty(0, np.int64))
    assert nothing.places(np.array([0, 3])).tolist() == [-1, -1]


@pytest.mark.parametrize("seed", range(4))
def test_a_basis_has_as_many_cycles_as_the_graph_has_independent_ones(seed):
    source, target = drawn(seed)
    _, undirected = networks(source, target)
    basis = cycle_basis(source, target)
    parts = nx.number_connected_components(undirected)
    assert len(basis) == undirected.number_of_edges() - undirected.number_of_nodes() + parts
    for cycle in basis:
        assert len(set(cycle)) == len(cycle) >= 3
        assert all(undirected.has_edge(*pair) for pair in zip(cycle, cycle[1:] + cycle[:1], strict=True))
    assert independent(basis, undirected)


def independent(cycles, graph):
    """Whether no cycle is the sum of others, as sets of edges over the field of two elements."""
    number = {frozenset(edge): bit for bit, edge in enumerate(graph.edges)}
    rows = [sum(1 << number[frozenset(pair)] for pair in zip(c, c[1:] + c[:1], strict=True)) for c in cycles]
    rank = 0
    while rows:
        row = rows.pop()
        if row:
            rank += 1
            low = row & -row
            rows = [other ^ row if other & low else other for other in rows]
    return rank == len(cycles)
