"""The gated delta rule in chunks: matrix products and one triangular solve for each chunk.

Yang et al. 2024, https://arxiv.org/abs/2406.06484, section 3 (the WY representation and the UT transform),
with the decays of https://arxiv.org/abs/2412.06464, section 3.3. With G_i the sum of g to token i of the
chunk, the state after it is

    S_i = exp(G_i) S_0 + sum over j <= i of exp(G_i - G_j) k_j w_j^T,

where the writes w_j solve (I + M) W = diag(beta) (V - (exp(G) K) S_0) with M strictly lower triangular,
M_ij = beta_i exp(G_i - G_j) k_i k_j^T. Only S_0 passes from chunk to chunk.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from helix_ssm.ops.chunked.matrix_state import in_chunks
from helix_ssm.ops.gated_delta_rule import op, step


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    chunks, one = partial(_chunks, scale), partial(step, scale)
    return in_chunks(chunks, one, (q, k, v, g, beta), initial_state, cu_seqlens, longest=64)


gated_delta_rule_backward = op.gradient_of(gated_delta_rule)


def _chunks(
    scale: float, state: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the outputs (B, H, n, C, V) and the state after the last chunk (B, H, K, V)."""
    q, beta = scale * q, beta.unsqueeze(-1)
    decays = _decays(g)
    from_start, to_end = g.cumsum(-1).exp().unsqueeze(-1), decays[..., -1, :].unsqueeze(-1)
    system = beta * (k @ k.mT) * decays
    writes, reads = torch.linalg.solve_triangular(
        system, beta * torch.cat([v, from_start * k], -1), upper=False, unitriangular=True
    ).split([v.shape[-1], k.shape[-1]], -1)
    states, corrected = [], []
    for write, read, key, decay in zip(
        writes.unbind(2),
        reads.unbind(2),
        (to_end * k).mT.unbind(2),
        from_start[..., -1:, :].unbind(2),
        strict=True,
    ):
        states.append(state)
        corrected.append(write - read @ state)
        state = decay * state + key @ corrected[-1]
    scores = (q @ k.mT) * decays
    return (from_start * q) @ torch.stack(states, 2) + scores @ torch.stack(corrected, 2), state


def _decays(g: Tensor) -> Tensor:
    """Return exp(G_i - G_j) for j <= i, else zero: (..., C, C) of the logarithms g (..., C).

    Each is the exponential of its own sum of g from j + 1 to i: a difference of two long sums would lose
    digits behind a strong decay, and be undefined behind an infinite one.
    """
    length = g.shape[-1]
    ones = torch.ones(length, length, dtype=torch.bool, device=g.device)
    sums = g.unsqueeze(-2).masked_fill(ones.tril(), 0.0).cumsum(-1)
    return sums.exp().masked_fill(ones.tril(-1), 0.0).mT
