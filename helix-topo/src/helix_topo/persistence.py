"""Which holes a graph has, and over which range of counts: persistent homology of its flag complex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import gudhi
import numpy as np

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


@attrs.frozen(kw_only=True, eq=False)
class Intervals:
    """The classes of one dimension of homology, the longest-lived first.

    Args:
        birth: (n,) at which value of the filtration each appears.
        death: (n,) at which it is filled; inf where it never is.
    """

    birth: NDArray[np.float64]
    death: NDArray[np.float64]

    @property
    def lifetime(self) -> NDArray[np.float64]:
        """How long each lasts (n,)."""
        return self.death - self.birth

    def alive(self, value: float) -> int:
        """Return how many there are at a value of the filtration: the Betti number."""
        return int(((self.birth <= value) & (value < self.death)).sum())


def persistence(
    source: NDArray[np.int64],
    target: NDArray[np.int64],
    count: NDArray[np.int32],
    *,
    dimension: int = 1,
) -> Intervals:
    """Return the persistent homology, over the field of two elements, of the flag complex of arcs (n,).

    Nodes are there from 0 on, an edge from 1 / count, a simplex as soon as all its edges are: so what is
    often taken comes first, and a hole that lives long is a cycle of strong arcs that only weak ones cut
    across. The count of an edge is the sum of those of all arcs between its two nodes; loops are left out.

    Args:
        source: Nodes from which arcs lead.
        target: Nodes to which they lead.
        count: How often each was seen.
        dimension: Of what is found: 0 parts, 1 cycles, 2 voids.

    Raises:
        ArgumentError: A count is below 1, or the dimension below 0.
    """
    if dimension < 0 or (len(count) and count.min() < 1):
        raise ArgumentError(f"dimension is {dimension}, allowed is >= 0; counts must be >= 1")
    nodes, ends = np.unique(np.concatenate([source, target]), return_inverse=True)
    tails, heads = ends.reshape(2, -1)
    tree = gudhi.SimplexTree()
    # One by one: of gudhi 3.13 insert_batch loses the values of nodes.
    for node in range(len(nodes)):
        tree.insert([node], 0.0)
    for low, high, value in _edges(tails, heads, count, len(nodes)):
        tree.insert([low, high], value)
    if dimension == 1:
        tree.collapse_edges()  # leaves out edges that change nothing of what is found
    tree.expansion(dimension + 1)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=True)
    pairs = np.reshape(tree.persistence_intervals_in_dimension(dimension), (-1, 2))
    order = np.lexsort([pairs[:, 0], pairs[:, 0] - pairs[:, 1]])
    return Intervals(birth=pairs[order, 0], death=pairs[order, 1])


def _edges(
    tails: NDArray[np.int64], heads: NDArray[np.int64], count: NDArray[np.int32], n_nodes: int
) -> Iterator[tuple[int, int, float]]:
    """Return the edges, each once, with the value from which on each is there."""
    apart = tails != heads
    low, high = np.minimum(tails, heads)[apart], np.maximum(tails, heads)[apart]
    edges, which = np.unique(low * n_nodes + high, return_inverse=True)
    total = np.bincount(which, weights=count[apart], minlength=len(edges))
    values = (1.0 / total).tolist()
    return zip((edges // n_nodes).tolist(), (edges % n_nodes).tolist(), values, strict=True)
