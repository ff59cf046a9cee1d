"""Gated linear attention in chunks, stable however strong the gates are.

Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4. Within a chunk outputs are products of
queries and keys weighed by the gates between them; only the state before it passes from chunk to chunk.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from helix_ssm.ops.chunked.decayed import decayed_products
from helix_ssm.ops.chunked.matrix_state import in_chunks
from helix_ssm.ops.gla import op, step


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    chunks, one = partial(_chunks, scale), partial(step, scale)
    return in_chunks(chunks, one, (q, k, v, g), initial_state, cu_seqlens, longest=64)


gla_backward = op.gradient_of(gla)


def _chunks(scale: float, state: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, n, C, V) and the state after the last chunk (B, H, K, V)."""
    q = scale * q
    scores, from_start, to_end = decayed_products(q.unsqueeze(-2), k.unsqueeze(-2), g.exp())
    written, kept = (to_end * k).mT @ v, from_start[..., -1, :].unsqueeze(-1)
    states = []
    for chunk_written, chunk_kept in zip(written.unbind(2), kept.unbind(2), strict=True):
        states.append(state)
        state = torch.addcmul(chunk_written, chunk_kept, state)
    return (from_start * q) @ torch.stack(states, 2) + scores @ v, state
