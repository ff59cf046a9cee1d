"""Softmax attention over whole sequences and over caches, without a mask of seq_len by seq_len."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.layers.protocol import at_least_float32

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_ssm.layers.kv_cache import Cache

_BLOCK = 128
_SCORES = 2**24


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, window: int | None) -> Tensor:
    """Attend within whole sequences; torch's fused kernels keep the softmax in float32 or wider.

    Args:
        q: Queries (B, H, L, K).
        k: Keys (B, H / G, L, K), each shared by the G neighbouring heads of a group.
        v: Values, shaped as `k`.
        causal: Whether a token sees none after it.
        window: How many tokens a token sees, itself included; None for all. Needs `causal`.

    Returns:
        (B, H, L, K). With a window it takes O(L window) time, and memory linear in L.
    """
    if window is None or q.shape[2] <= window:
        return _fused(q, k, v, causal=causal)
    size = _block_size(window)
    n_first = min(size, q.shape[2])
    mask = _band(size, window, q.device)[:n_first, window - 1 : window - 1 + n_first]
    first = _fused(q[:, :, :size], k[:, :, :size], v[:, :, :size], mask=mask)
    return torch.cat([first, _later_blocks(q, k, v, window)], dim=2)


def attend_after(
    past: Sequence[Cache], own: Cache, q: Tensor, positions: Tensor, *, window: int | None
) -> Tensor:
    """Attend from a chunk to itself and to what came before it.

    Args:
        past: Keys and values before the chunk, in parts that are never copied into one.
        own: Those of the chunk itself.
        q: The chunk's queries (B, H, L, K).
        positions: Their positions (B, L).
        window: How many tokens a token sees, itself included; None for all.

    Returns:
        (B, H, L, K); at a position of -1, which is padding, any finite values.
    """
    if not any(part.n_slots for part in past):
        return attend(q, own.keys, own.values, causal=True, window=window)
    n_near = q.shape[2] if window is None else min(q.shape[2], _block_size(window))
    n_slots = sum(part.n_slots for part in past) + n_near
    n_queries = min(_BLOCK, max(1, _SCORES // (q.shape[1] * n_slots)))
    outputs = [q[:, :, :0]]
    for start in range(0, n_near, n_queries):
        end = min(start + n_queries, n_near)
        parts = [*past, own.between(0, end)]
        outputs.append(_attend_to(parts, q[:, :, start:end], positions[:, start:end], window))
    if window is not None:
        outputs.append(_later_blocks(q, own.keys, own.values, window))
    return torch.cat(outputs, dim=2)


def _attend_to(parts: Sequence[Cache], q: Tensor, positions: Tensor, window: int | None) -> Tensor:
    """Attend to the union of several caches, by positions: the formula itself, the softmax in float32."""
    batch_size, n_heads, seq_len, head_dim = q.shape
    n_kv_heads = parts[0].keys.shape[1]
    # The heads of a group become more queries to the head that they share, which so needs no copies.
    grouped = q.reshape(batch_size, n_kv_heads, n_heads // n_kv_heads * seq_len, head_dim)
    scores = at_least_float32(torch.cat([grouped @ part.keys.mT for part in parts], dim=-1)) * head_dim**-0.5
    at = torch.cat([part.positions for part in parts], dim=1)[:, None]
    seen = (at >= 0) & (at <= positions[..., None])
    if window is not None:
        seen &= at > positions[..., None] - window
    scores = scores.view(batch_size, n_kv_heads, n_heads // n_kv_heads, seq_len, scores.shape[-1])
    # Not -inf, which makes NaN of a padded query that sees nothing.
    scores = scores.masked_fill(~seen[:, None, None], torch.finfo(scores.dtype).min)
    weights = scores.softmax(-1).flatten(2, 3).to(q.dtype)
    shares = weights.split([part.n_slots for part in parts], dim=-1)
    y = torch.stack([share @ part.values for share, part in zip(shares, parts, strict=True)]).sum(0)
    return y.view(q.shape)


def _later_blocks(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attend from all tokens but those of the first block, which alone may see what is not in k and v.

    A block of queries sees its own keys and the last window - 1 of the block before, so that one mask
    serves all blocks.
    """
    size = _block_size(window)
    n_later = max(0, q.shape[2] - size)
    if not n_later:
        return q[:, :, :0]
    n_blocks = -(-n_later // size)
    q, k, v = (F.pad(x, (0, 0, 0, (1 + n_blocks) * size - x.shape[2])) for x in (q, k, v))
    queries = _as_rows(_in_blocks(q, size)[:, :, 1:])
    keys, values = (_as_rows(_with_the_end_of_the_block_before(x, size, window)) for x in (k, v))
    y = _fused(queries, keys, values, mask=_band(size, window, q.device))
    return y.view(-1, n_blocks, *y.shape[1:]).transpose(1, 2).flatten(2, 3)[:, :, :n_later]


def _with_the_end_of_the_block_before(x: Tensor, size: int, window: int) -> Tensor:
    """Return (B, H, n_blocks, window - 1 + size, K) of all blocks of x (B, H, T, K) but the first."""
    blocks = _in_blocks(x, size)
    return torch.cat([blocks[:, :, :-1, size - window + 1 :], blocks[:, :, 1:]], dim=3)


def _in_blocks(x: Tensor, size: int) -> Tensor:
    return x.view(*x.shape[:2], -1, size, x.shape[-1])


def _as_rows(blocks: Tensor) -> Tensor:
    """Turn (B, H, n_blocks, L, K) into a batch (B * n_blocks, H, L, K)."""
    return blocks.transpose(1, 2).flatten(0, 1)


def _fused(q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
    """Run torch's kernel, such that it need not write its scores down."""
    n_shared = q.shape[1] // k.shape[1]
    if n_shared > 1 and q.is_cuda and (mask is not None or q.element_size() > 2):
        # Only flash attention shares heads there, and it takes neither masks nor more than 16 bits.
        k, v, n_shared = k.repeat_interleave(n_shared, dim=1), v.repeat_interleave(n_shared, dim=1), 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=n_shared > 1)


def _band(size: int, window: int, device: torch.device) -> Tensor:
    """Return which of window - 1 + size keys each of the last `size` tokens sees, as a bool mask."""
    query = torch.arange(size, device=device).unsqueeze(1)
    key = torch.arange(window - 1 + size, device=device)
    return (query <= key) & (key < query + window)


def _block_size(window: int) -> int:
    return max(window, _BLOCK)
