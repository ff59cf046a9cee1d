"""The vectors of a table that are most like given ones, found by comparing with all of them."""

from __future__ import annotations

import torch
from torch import Tensor

_KEYS = 16_384
_SCORES = 2**22
_MARGIN = 16
_GATHERED = 2**22
# Above what float32 rounds in a sum of products of unit vectors, whatever the order of the sum.
_ROUNDING = 1e-5


def nearest(queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k keys of largest inner product with each query; of equal ones the later id comes first.

    Products are made in blocks in float32, by which candidates are chosen with some to spare; those are
    compared in float64, so that the answer to a query depends neither on the other queries nor on the block
    that a key stands in. It takes O(Q N D) time and no more than some MB of memory.

    Args:
        queries: (Q, D) float32, of unit length or 0.
        keys: (N, D) float32, of unit length or 0.
        ids: (N,) int64, the entry in each row; -1 where there is none.
        k: Places for each query.

    Returns:
        Rows of `keys` (Q, k) int64, -1 where there are no more; and their scores (Q, k), -inf there.
    """
    rows = max(1, _SCORES // min(_KEYS, max(1, len(keys))))
    found = [_nearest(part, keys, ids, k) for part in torch.split(queries, rows)]
    if not found:
        return ids.new_zeros(0, k), keys.new_zeros(0, k)
    return torch.cat([slots for slots, _ in found]), torch.cat([scores for _, scores in found])


class ExactIndex:
    """Compares with all keys, so that it needs to remember nothing."""

    def added(self, slots: Tensor, keys: Tensor) -> None:
        """See `helix_topo.search.index.Index`."""

    def removed(self, slots: Tensor) -> None:
        """See `helix_topo.search.index.Index`."""

    def find(self, queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """See `helix_topo.search.index.Index`."""
        return nearest(queries, keys, ids, k)

    def state(self) -> Tensor | None:
        """See `helix_topo.search.index.Index`."""
        return None

    def load_state(self, state: Tensor | None) -> None:
        """See `helix_topo.search.index.Index`."""

    def n_bytes(self) -> int:
        """See `helix_topo.search.index.Index`."""
        return 0


def ranked(queries: Tensor, slots: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the best k of the candidates of each query, as `nearest` does.

    Args:
        queries: (Q, D) float32.
        slots: (Q, M) int64, rows of `keys`, each at most once for a query; -1 for none.
        keys: (N, D) float32.
        ids: (N,) int64.
        k: Places for each query; there may be fewer candidates.
    """
    rows = max(1, _GATHERED // max(1, slots.shape[1] * keys.shape[1]))
    parts = zip(torch.split(queries, rows), torch.split(slots, rows), strict=True)
    scores = torch.cat([_products(q, keys, s) for q, s in parts]) if len(queries) else keys.new_zeros(0, 0)
    return _best(slots, scores.view(slots.shape), ids, k)


def _nearest(queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    slots, scores = ids.new_full((len(queries), k), -1), keys.new_full((len(queries), k), -torch.inf)
    for start in range(0, len(keys), _KEYS):
        block, own = keys[start : start + _KEYS], ids[start : start + _KEYS]
        near, likeness = _of_block(queries, block, own, k)
        slots = torch.cat([slots, torch.where(near < 0, -1, near + start)], dim=1)
        slots, scores = _best(slots, torch.cat([scores, likeness], dim=1), ids, k)
    return slots, scores


def _of_block(queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    n = min(k + _MARGIN, len(keys))
    rough = (queries @ keys.T).masked_fill_(ids < 0, -torch.inf)
    best = rough.topk(n, dim=1)
    slots, scores = ranked(queries, torch.where(best.values.isinf(), -1, best.indices), keys, ids, k)
    if n < len(keys):
        last = best.values[:, -1]
        crowded = ~last.isinf() & (best.values[:, k - 1] - last <= _ROUNDING)
        if crowded.any():
            slots[crowded], scores[crowded] = _of_crowd(queries[crowded], keys, ids, k)
    return slots, scores


def _of_crowd(queries: Tensor, keys: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Answer where more keys are alike than there were candidates to spare."""
    scores = (queries.double() @ keys.double().T).float().masked_fill_(ids < 0, -torch.inf)
    slots = torch.arange(len(keys), device=ids.device).expand(scores.shape)
    return _best(torch.where(ids < 0, -1, slots), scores, ids, k)


def _products(queries: Tensor, keys: Tensor, slots: Tensor) -> Tensor:
    chosen = keys[slots.clamp(min=0)].double()
    products = (chosen @ queries.double().unsqueeze(-1)).squeeze(-1)
    # Rounded to float32, equal keys have equal scores, in whatever order the products were summed.
    return products.float().masked_fill_(slots < 0, -torch.inf)


def _best(slots: Tensor, scores: Tensor, ids: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sort candidates (Q, M) by score, then by id, and keep k places."""
    missing = max(0, k - slots.shape[1])
    slots = torch.nn.functional.pad(slots, (0, missing), value=-1)
    scores = torch.nn.functional.pad(scores, (0, missing), value=-torch.inf)
    if not len(ids):
        return slots[:, :k], scores[:, :k]
    age = torch.where(slots < 0, -1, ids[slots.clamp(min=0)])
    order = age.argsort(dim=1, descending=True, stable=True)
    slots, scores = slots.gather(1, order), scores.gather(1, order)
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :k]
    return slots.gather(1, order), scores.gather(1, order)
