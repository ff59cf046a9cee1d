"""Graphs of neighbours over what long streams have seen, beside their states."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

if TYPE_CHECKING:
    from helix_topo.memory_state import Store
    from helix_topo.search.approximate import ApproximateIndex


class StreamIndex:
    """Finds settled slots like a query, by a graph for each row and head.

    A graph follows from the keys, in their order, and so is no part of a state: it is kept for as long as
    the state's tensor of keys lives, passed on when the stream goes on, and built anew where a state comes
    from elsewhere, such as a file, other rows, or a second continuation of one state. A copy of this object
    starts without graphs.
    """

    def __init__(self) -> None:
        self._graphs = WeakTensorKeyDictionary()

    def candidates(self, store: Store, q: Tensor, k: int) -> Tensor:
        """Return slots of a store (B, H, L, M) that are likely to be the k most like queries (B, H, L, K).

        Places for which there is none hold -1.
        """
        graphs = self._of(store)
        rows = [graph.candidates(own, k) for graph, own in zip(graphs, q.flatten(0, 1), strict=True)]
        return torch.stack(rows).view(*q.shape[:3], -1).to(q.device)

    def go_on(self, before: Store, after: Store) -> None:
        """Pass graphs on from a store to one that holds its slots and then more."""
        if before.keys is not after.keys and before.keys in self._graphs:
            graphs = self._graphs[before.keys]
            del self._graphs[before.keys]
            _add(graphs, after, before.n_slots)
            self._graphs[after.keys] = graphs

    def __reduce__(self) -> tuple[type[StreamIndex], tuple[()]]:
        """Return how a copy is made."""
        return StreamIndex, ()

    def _of(self, store: Store) -> list[ApproximateIndex]:
        from helix_topo.search.approximate import ApproximateIndex

        if store.keys not in self._graphs:
            batch_size, n_heads, _, head_dim = store.keys.shape
            graphs = [ApproximateIndex(head_dim) for _ in range(batch_size * n_heads)]
            _add(graphs, store, 0)
            self._graphs[store.keys] = graphs
        found: list[ApproximateIndex] = self._graphs[store.keys]
        return found


def _add(graphs: list[ApproximateIndex], store: Store, start: int) -> None:
    """Add the slots from `start` on that are not empty."""
    n_heads = store.keys.shape[1]
    for number, graph in enumerate(graphs):
        row, head = divmod(number, n_heads)
        slots = (store.positions[row, start:] >= 0).nonzero().flatten() + start
        graph.added(slots, store.keys[row, head, slots])
