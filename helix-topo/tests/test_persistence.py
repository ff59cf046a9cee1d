from __future__ import annotations

import networkx as nx
import numpy as np
import pytest

from helix_kernel.errors import ArgumentError
from helix_topo.persistence import persistence


def of(graph, *, dimension=1, count=1, seed=0):
    """The persistence of an undirected graph; each edge is given one direction at random."""
    rng = np.random.default_rng(seed)
    edges = np.array([rng.permutation(edge) for edge in nx.convert_node_labels_to_integers(graph).edges])
    return persistence(edges[:, 0], edges[:, 1], np.full(len(edges), count), dimension=dimension)


@pytest.mark.parametrize(
    ("graph", "betti"),
    [
        pytest.param(nx.cycle_graph(4), (1, 1, 0), id="a ring of four"),
        pytest.param(nx.cycle_graph(3), (1, 0, 0), id="a triangle is filled"),
        pytest.param(nx.petersen_graph(), (1, 6, 0), id="Petersen's graph has no triangle"),
        pytest.param(nx.octahedral_graph(), (1, 0, 1), id="an octahedron is a sphere"),
        pytest.param(nx.complete_graph(6), (1, 0, 0), id="a simplex"),
        pytest.param(nx.path_graph(7), (1, 0, 0), id="a path"),
        pytest.param(
            nx.disjoint_union(nx.cycle_graph(5), nx.cycle_graph(6)),
            (2, 2, 0),
            id="two rings",
        ),
        # Each torus square is cut by its diagonal, and with 5 a side all triangles are those.
        pytest.param(
            nx.Graph(
                ((i, j), ((i + a) % 5, (j + b) % 5))
                for i in range(5)
                for j in range(5)
                for a, b in [(0, 1), (1, 0), (1, 1)]
            ),
            (1, 2, 1),
            id="a torus",
        ),
    ],
)
def test_known_complexes_have_their_betti_numbers(graph, betti):
    assert tuple(of(graph, dimension=d).alive(1.0) for d in range(3)) == betti


def test_a_cycle_lives_from_its_weakest_arc_to_the_chord_that_cuts_it():
    source, target = np.array([0, 1, 2, 3, 0]), np.array([1, 2, 3, 0, 2])
    found = persistence(source, target, np.array([10, 8, 20, 5, 2]))
    np.testing.assert_allclose(found.birth, [1 / 5])
    np.testing.assert_allclose(found.death, [1 / 2])
    assert [found.alive(value) for value in (0.1, 0.3, 0.5)] == [0, 1, 0]


def test_arcs_both_ways_are_one_edge_of_their_summed_count_and_loops_are_none():
    source, target = np.array([0, 1, 2, 3, 1, 2]), np.array([1, 2, 3, 0, 0, 2])
    found = persistence(source, target, np.array([2, 4, 4, 4, 1, 9]))
    np.testing.assert_allclose(found.birth, [1 / 3])
    assert np.isinf(found.death).all()


def test_the_longest_lived_come_first():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 30, (2, 120))
    found = persistence(source, target, rng.integers(1, 50, 120))
    assert len(found.birth) > 3
    assert (np.diff(found.lifetime[np.isfinite(found.lifetime)]) <= 0).all()


@pytest.mark.parametrize("seed", range(3))
def test_collapsing_edges_changes_nothing_of_what_is_found(seed):
    """The alternating sum of Betti numbers is that of the numbers of simplices: Euler and Poincaré."""
    rng = np.random.default_rng(seed)
    graph = nx.gnp_random_graph(14, 0.35, seed=seed)
    edges = np.array(graph.edges)
    count = rng.integers(1, 9, len(edges))
    for value in (1 / 6, 1 / 3, 1.0):
        kept = nx.Graph(edges[1 / count <= value].tolist())
        kept.add_nodes_from(np.unique(edges))
        simplices = np.bincount([len(clique) for clique in nx.enumerate_all_cliques(kept)])[1:]
        euler = (simplices * (-1) ** np.arange(len(simplices))).sum()
        betti = [
            persistence(edges[:, 0], edges[:, 1], count, dimension=d).alive(value)
            for d in range(len(simplices))
        ]
        assert sum((-1) ** d * number for d, number in enumerate(betti)) == euler


def test_nothing_has_no_holes():
    nothing = np.empty(0, np.int64)
    assert len(persistence(nothing, nothing, np.empty(0, np.int32)).birth) == 0


def test_counts_below_one_are_refused():
    with pytest.raises(ArgumentError, match="counts must be >= 1"):
        persistence(np.array([0]), np.array([1]), np.array([0]))
