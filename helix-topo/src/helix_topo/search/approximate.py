"""The vectors most like given ones, found by a walk over a graph of neighbours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from usearch.index import BatchMatches, Index

from helix_topo.search.exact import ranked

if TYPE_CHECKING:
    from torch import Tensor

_MARGIN = 16


class ApproximateIndex:
    """A graph of neighbours (HNSW: Malkov and Yashunin 2016, arXiv:1603.09320), by usearch.

    What it finds is compared again in float64, so that scores are true and equal ones are in order; what it
    misses stays missing. One thread builds it, so that the same calls make the same graph.

    Args:
        d_key: Length D of a key.
        n_neighbors: Neighbours of a key in the graph.
        n_tried: Candidates that a walk keeps; more find more and take longer.
    """

    def __init__(self, d_key: int, *, n_neighbors: int = 16, n_tried: int = 64) -> None:
        self._options: dict[str, Any] = {
            "ndim": d_key,
            "metric": "ip",
            "dtype": "f32",
            "connectivity": n_neighbors,
            "expansion_add": 2 * n_tried,
            "expansion_search": n_tried,
        }
        self._graph = Index(**self._options)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._graph)

    def added(self, slots: Tensor, keys: Tensor) -> None:
        """Learn of new keys (n, D) in rows (n,), each once, of which none is taken."""
        if len(slots):
            self._graph.add(_as_numpy(slots), _as_numpy(keys.float()), threads=1)

    def removed(self, slots: Tensor) -> None:
        """Learn that rows (n,), each once, are free."""
        if len(slots):
            self._graph.remove(_as_numpy(slots))

    def find(self, queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return rows (Q, k) and scores (Q, k) as `helix_topo.search.exact.nearest` does, but for misses."""
        return ranked(queries, self.candidates(queries, k).to(ids.device), keys, ids, k)

    def candidates(self, queries: Tensor, k: int) -> Tensor:
        """Return rows (Q, M) that are likely the nearest, M at least k and some to spare; -1 for none."""
        n = k + _MARGIN
        if not len(queries) or not len(self._graph):
            return torch.full((len(queries), n), -1)
        found = self._graph.search(_as_numpy(queries.float()), n, threads=1)
        rows = np.full((len(queries), n), -1)
        if isinstance(found, BatchMatches):
            for row, count in enumerate(found.counts.tolist()):
                rows[row, :count] = found.keys[row, :count]
        else:
            rows[0, : len(found)] = found.keys
        return torch.from_numpy(rows)

    def state(self) -> Tensor | None:
        """Return the graph, uint8."""
        return torch.frombuffer(bytearray(self._graph.save() or b""), dtype=torch.uint8)

    def load_state(self, state: Tensor | None) -> None:
        """Become the index that `state` was taken from; without one, an empty index."""
        graph = Index(**self._options)
        if state is not None:
            graph.load(state.numpy().tobytes())
        self._graph = graph

    def n_bytes(self) -> int:
        """Return what the graph holds, copies of the keys with it; it is set aside in steps of 16 MB."""
        return int(self._graph.serialized_length)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy is made of, since the graph itself knows of no copies."""
        return {"options": self._options, "graph": self.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become a copy."""
        self._options = state["options"]
        self.load_state(state["graph"])


def _as_numpy(tensor: Tensor) -> Any:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())
