"""The shape of a directed graph: strongly connected components, core numbers, a basis of its cycles."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import attrs
import numpy as np
import rustworkx as rx

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]


@attrs.frozen(kw_only=True, eq=False)
class Analysis:
    """What is known of each node of a graph, by the nodes' order.

    Args:
        nodes: (n,) the nodes' names, ascending.
        component: (n,) the number of each one's strongly connected component; they are numbered by their
            smallest nodes.
        cyclic: (n,) whether the node lies on a cycle: its component has other nodes, or it has a loop.
        core: (n,) core number: the largest k such that the node belongs to a part of the graph in which each
            node has k neighbours or more, whichever way the arcs go; loops do not count.
    """

    nodes: Integers
    component: Integers
    cyclic: NDArray[np.bool_]
    core: Integers

    def places(self, nodes: Integers) -> Integers:
        """Return where nodes lie in the arrays; -1 for one that the graph does not have."""
        if not len(self.nodes):
            return np.full(len(nodes), -1, np.int64)
        places = np.searchsorted(self.nodes, nodes).clip(max=len(self.nodes) - 1)
        return np.where(self.nodes[places] == nodes, places, -1)


def analysed(source: Integers, target: Integers) -> Analysis:
    """Return the components and core numbers of the graph of arcs (n,) from `source` to `target`."""
    nodes, ends = np.unique(np.concatenate([source, target]), return_inverse=True)
    tails, heads = ends.reshape(2, -1)
    component = _components(len(nodes), tails, heads)
    cyclic = np.bincount(component, minlength=len(nodes))[component] > 1
    cyclic[tails[tails == heads]] = True
    return Analysis(
        nodes=nodes, component=component, cyclic=cyclic, core=_core_numbers(len(nodes), tails, heads)
    )


def cycle_basis(source: Integers, target: Integers) -> list[list[int]]:
    """Return cycles of which all others are sums, whichever way the arcs go; each is a list of nodes.

    There are as many as arcs of different pairs of nodes, less nodes, plus connected parts. A loop, and a
    pair of nodes with arcs both ways, is no cycle here.
    """
    nodes, ends = np.unique(np.concatenate([source, target]), return_inverse=True)
    graph = _undirected(len(nodes), *ends.reshape(2, -1))
    return [nodes[cycle].tolist() for cycle in rx.cycle_basis(graph)]


def _components(n_nodes: int, tails: Integers, heads: Integers) -> Integers:
    graph: rx.PyDiGraph[int, None] = rx.PyDiGraph(node_count_hint=n_nodes, edge_count_hint=len(tails))
    graph.add_nodes_from(range(n_nodes))
    graph.add_edges_from_no_data(_pairs(tails, heads))
    component = np.empty(n_nodes, np.int64)
    for number, members in enumerate(sorted(rx.strongly_connected_components(graph), key=min)):
        component[members] = number
    return component


def _core_numbers(n_nodes: int, tails: Integers, heads: Integers) -> Integers:
    graph = _undirected(n_nodes, tails, heads)
    numbers = cast("dict[int, int]", rx.core_number(graph))  # its stubs say int
    return np.array([numbers[node] for node in range(n_nodes)], np.int64)


def _undirected(n_nodes: int, tails: Integers, heads: Integers) -> rx.PyGraph[int, None]:
    """Return the graph without directions, loops and parallel edges."""
    low, high = np.minimum(tails, heads), np.maximum(tails, heads)
    edges = np.unique((low * n_nodes + high)[low < high])
    graph: rx.PyGraph[int, None] = rx.PyGraph(node_count_hint=n_nodes, edge_count_hint=len(edges))
    graph.add_nodes_from(range(n_nodes))
    graph.add_edges_from_no_data(_pairs(edges // n_nodes, edges % n_nodes))
    return graph


def _pairs(tails: Integers, heads: Integers) -> list[tuple[int, int]]:
    return list(zip(tails.tolist(), heads.tolist(), strict=True))
