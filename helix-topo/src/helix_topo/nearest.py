"""Attention to the k best of many slots: they are chosen without a gradient, and weighed with one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_topo.memory_state import Store

_SCORES = 2**24
_BLOCK = 256


def attend_to_nearest(
    q: Tensor, parts: Sequence[Store], positions: Tensor, *, scale: Tensor, k: int, window: int | None
) -> Tensor:
    """Attend from each query to the k seen slots whose keys are most like it.

    Args:
        q: Queries (B, H, L, K), of unit length.
        parts: Slots, in parts that are never copied into one; the last part holds the queries' own
            positions, a slot for each.
        positions: The queries' positions (B, L). A query sees those up to its own.
        scale: What scores are multiplied by (H,), before the softmax.
        k: How many slots a query reads, at least 1; where fewer are seen, all.
        window: How many positions a query sees, its own included; None for all.

    Returns:
        (B, H, L, K), 0 where a query sees nothing. Scores are made for blocks of queries, so that memory
        without gradients is bounded; with them it is O(L k K) or O(L T), whichever is less.
    """
    *past, own = parts
    n_slots = sum(part.n_slots for part in parts)
    n_queries = max(1, _SCORES // max(1, q.shape[0] * q.shape[1] * n_slots))
    outputs = [q[:, :, :0]]
    for start in range(0, q.shape[2], n_queries):
        end = min(start + n_queries, q.shape[2])
        first = 0 if window is None else max(0, start - window + 1)
        block = [*past, own.between(first, end)]
        outputs.append(_attend(q[:, :, start:end], block, positions[:, start:end], scale, k, window))
    return torch.cat(outputs, dim=2)


def attend_to_chosen(q: Tensor, keys: Tensor, values: Tensor, seen: Tensor, *, scale: Tensor) -> Tensor:
    """Attend from each query (B, H, L, K) to slots of its own (B, H, L, k, K), where seen (B, H, L, k)."""
    scores = _wide((q.unsqueeze(-2) @ keys.mT).squeeze(-2)) * scale.view(-1, 1, 1)
    weights = _softmax(scores, seen).to(q.dtype)
    return (weights.unsqueeze(-2) @ values).squeeze(-2)


def attend_to_candidates(
    q: Tensor, parts: Sequence[Store], positions: Tensor, candidates: Tensor, *, scale: Tensor, k: int
) -> Tensor:
    """Attend as `attend_to_nearest` does without a window, but of the first part to candidates only.

    Args:
        q: Queries (B, H, L, K).
        parts: Slots; those of the first came before all queries, the others are compared one by one.
        positions: The queries' positions (B, L).
        candidates: Slots of the first part (B, H, L, M), each at most once; -1 for none.
        scale: What scores are multiplied by (H,).
        k: How many slots a query reads.
    """
    outputs = [q[:, :, :0]]
    for start in range(0, q.shape[2], _BLOCK):
        block = slice(start, start + _BLOCK)
        queries, likely = q[:, :, block], candidates[:, :, block]
        rough = torch.cat([queries @ part.keys.mT for part in parts[1:]], dim=-1)
        among = visible(parts[1:], positions[:, block], None).expand_as(rough)
        near = best(rough, among, k)
        seen = torch.cat([likely >= 0, among.gather(-1, near)], dim=-1)
        keys, values = taken(parts, torch.cat([likely.clamp(min=0), near + parts[0].n_slots], dim=-1))
        chosen = best((queries.unsqueeze(-2) @ keys.mT).squeeze(-2), seen, k)
        kept = torch.zeros_like(seen).scatter(-1, chosen, True)
        outputs.append(attend_to_chosen(queries, keys, values, seen & kept, scale=scale))
    return torch.cat(outputs, dim=2)


def best(scores: Tensor, seen: Tensor, k: int) -> Tensor:
    """Return which k of the slots that are seen have the best scores (…, k), int64, without a gradient."""
    hidden = scores.detach().masked_fill(~seen, -torch.inf)
    return hidden.topk(min(k, scores.shape[-1]), dim=-1).indices


def visible(parts: Sequence[Store], positions: Tensor, window: int | None) -> Tensor:
    """Return which slots of all parts each query (B, L) sees, (B, 1, L, T) bool."""
    at = torch.cat([part.positions for part in parts], dim=1)[:, None, None]
    now = positions[:, None, :, None]
    seen = (at >= 0) & (at <= now)
    return seen if window is None else seen & (at > now - window)


def taken(parts: Sequence[Store], slots: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values (B, H, L, k, K) of slots (B, H, L, k), counted through all parts."""
    keys: Tensor | None = None
    values: Tensor | None = None
    start = 0
    for part in parts:
        if not part.n_slots:
            continue
        here = (slots - start).clamp(0, part.n_slots - 1)
        own_keys, own_values = (_gather(x, here) for x in (part.keys, part.values))
        later = (slots >= start).unsqueeze(-1)
        keys = own_keys if keys is None else torch.where(later, own_keys, keys)
        values = own_values if values is None else torch.where(later, own_values, values)
        start += part.n_slots
    assert keys is not None
    assert values is not None
    return keys, values


def _attend(
    q: Tensor, parts: Sequence[Store], positions: Tensor, scale: Tensor, k: int, window: int | None
) -> Tensor:
    seen = visible(parts, positions, window)
    n_slots = seen.shape[-1]
    # What backward must keep decides: some rows of T scores, or k keys and k values.
    if torch.is_grad_enabled() and n_slots > 2 * k * q.shape[-1]:
        with torch.no_grad():
            rough = torch.cat([q @ part.keys.mT for part in parts], dim=-1)
            slots = best(rough, seen, k)
        keys, values = taken(parts, slots)
        return attend_to_chosen(q, keys, values, seen.expand_as(rough).gather(-1, slots), scale=scale)
    scores = torch.cat([q @ part.keys.mT for part in parts], dim=-1)
    if k < n_slots:
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, best(scores, seen, k), True)
        seen = seen & chosen
    weights = _softmax(_wide(scores) * scale.view(-1, 1, 1), seen).to(q.dtype)
    shares = torch.split(weights, [part.n_slots for part in parts], dim=-1)
    return torch.stack([share @ part.values for share, part in zip(shares, parts, strict=True)]).sum(0)


def _softmax(scores: Tensor, seen: Tensor) -> Tensor:
    # Not -inf, which makes NaN where nothing is seen.
    return scores.masked_fill(~seen, torch.finfo(scores.dtype).min).softmax(-1).masked_fill(~seen, 0)


def _gather(x: Tensor, slots: Tensor) -> Tensor:
    """Take slots (B, H, L, k) of x (B, H, T, K)."""
    index = slots.flatten(2).unsqueeze(-1).expand(-1, -1, -1, x.shape[-1])
    return x.gather(2, index).view(*slots.shape, x.shape[-1])


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
