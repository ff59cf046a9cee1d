"""Gated linear attention in chunks, stable however strong the gates are.

Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4. Within a chunk outputs are products of
queries and keys weighed by the gates between them; only the state before it passes from chunk to chunk.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_ssm.ops._check import compute_dtype
from helix_ssm.ops.chunked.chunks import chunk_len, join, split
from helix_ssm.ops.chunked.decayed import decayed_products
from helix_ssm.ops.chunked.packed import Packing
from helix_ssm.ops.gla import op, reference

_LONGEST = 64


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says."""
    tokens = (q, k, v, g)
    if cu_seqlens is not None:
        packing = Packing.of(cu_seqlens, q.shape[1])
        q, k, v, g = map(packing.pad, tokens)
        o, final_state = gla(q, k, v, g, scale, initial_state, None)
        return packing.cut(o), final_state
    if q.shape[1] == 1:  # one step is the formula itself, in fewer calls
        return reference(q, k, v, g, scale, initial_state, None)
    dtype = compute_dtype(*tokens, initial_state)
    length = chunk_len(q.shape[1], _LONGEST)
    q_, k_, v_, g_ = (split(tensor.to(dtype), length) for tensor in tokens)
    if initial_state is None:
        initial_state = v.new_zeros(*k_.shape[:2], k.shape[3], v.shape[3], dtype=dtype)
    o, final_state = _chunks(q_ * scale, k_, v_, g_.exp(), initial_state.to(dtype))
    return join(o, q.shape[1]).to(v.dtype), final_state


gla_backward = op.gradient_of(gla)


def _chunks(q: Tensor, k: Tensor, v: Tensor, gates: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, n, C, V) and the state after the last chunk (B, H, K, V)."""
    scores, from_start, to_end = decayed_products(q.unsqueeze(-2), k.unsqueeze(-2), gates)
    written, kept = (to_end * k).mT @ v, from_start[..., -1, :].unsqueeze(-1)
    states = []
    for chunk_written, chunk_kept in zip(written.unbind(2), kept.unbind(2), strict=True):
        states.append(state)
        state = torch.addcmul(chunk_written, chunk_kept, state)
    return (from_start * q) @ torch.stack(states, 2) + scores @ v, state
