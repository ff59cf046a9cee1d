"""RWKV-7's recurrence in chunks: matrix products and one triangular solve for each chunk.

The generalised delta rule, after the chunks of the delta rule in Yang et al. 2024
(https://arxiv.org/abs/2406.06484, section 3). With W_ij the decay from after token j to token i of the
chunk, and u_t = S_{t-1}^T a_t what the transition reads, the state after token i is

    S_i = W_i0 S_0 + sum over j <= i of W_ij (k_j v_j^T + b_j u_j^T).

Both o_i = S_i^T r_i and u_{i+1} = S_i^T a_{i+1} read that same state; so U solves a system whose matrix is
the identity less a strictly lower triangular one. Only S_0 passes from chunk to chunk.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops.chunked.decayed import decayed_products
from helix_ssm.ops.chunked.matrix_state import in_chunks
from helix_ssm.ops.rwkv7 import op, step


def rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    return in_chunks(_chunks, step, (r, k, v, w, a, b), initial_state, cu_seqlens, longest=32)


rwkv7_backward = op.gradient_of(rwkv7)


def _chunks(
    state: Tensor, r: Tensor, k: Tensor, v: Tensor, w: Tensor, a: Tensor, b: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, n, C, V) and the state after the last chunk (B, H, K, V)."""
    readers = torch.stack([r, F.pad(a[..., 1:, :], (0, 0, 0, 1))], -2)
    products, from_start, to_end = decayed_products(readers, torch.stack([k, b], -2), w.exp())
    length = r.shape[-2]
    by_r, by_a = products.view(*products.shape[:3], length, 2, 2 * length).unbind(-2)
    r_k, r_b = _of_each_write(by_r)
    a_k, a_b = _of_each_write(_delay(by_a))
    system = (a_k @ v, a * _delay(from_start, first=1.0))
    known, reads = torch.linalg.solve_triangular(
        -a_b, torch.cat(system, -1), upper=False, unitriangular=True
    ).split([v.shape[-1], k.shape[-1]], -1)
    states, held, state = _carry(known, reads, (to_end * k).mT @ v, (to_end * b).mT, from_start, state)
    return (from_start * r) @ states + r_k @ v + r_b @ held, state


def _carry(
    known: Tensor, reads: Tensor, written: Tensor, writes: Tensor, from_start: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Pass the state from chunk to chunk.

    Args:
        known: What the transitions read of the chunk itself (B, H, n, C, V).
        reads: What they read of the state before it (B, H, n, C, K).
        written: What keys and values add to the state by its end (B, H, n, K, V).
        writes: Where the transitions write what they read (B, H, n, K, C).
        from_start: Decays from before the chunk to after each token (B, H, n, C, K).
        state: State before the first chunk (B, H, K, V).

    Returns:
        The states before each chunk (B, H, n, K, V), what the transitions read (B, H, n, C, V), and the
        state after the last chunk (B, H, K, V).
    """
    kept = from_start[..., -1, :].unsqueeze(-1)
    states, held = [], []
    for inside, read, added, write, decay in zip(
        *(tensor.unbind(2) for tensor in (known, reads, written, writes, kept)), strict=True
    ):
        states.append(state)
        held.append(inside + read @ state)
        state = torch.addcmul(added, decay, state) + write @ held[-1]
    return torch.stack(states, 2), torch.stack(held, 2), state


def _of_each_write(products: Tensor) -> tuple[Tensor, Tensor]:
    """Part products (..., C, 2 C) with two writes a token into those with the first and the second."""
    first, second = products.reshape(*products.shape[:-1], -1, 2).unbind(-1)
    return first, second


def _delay(rows: Tensor, first: float = 0.0) -> Tensor:
    """Move rows (..., C, X) down by one; the last falls out."""
    return F.pad(rows[..., :-1, :], (0, 0, 1, 0), value=first)
