"""The exponential-trapezoidal recurrence of Mamba-3, by one run of the state-space duality.

Lahoti, Li, Chen, Wang et al. 2026, "Mamba-3", https://arxiv.org/abs/2603.15569, section 3: with
a_t = exp(dt_t A_t) and the trapezoid's mix m_t,
h_t = a_t h_{t-1} + (1 - m_t) dt_t a_t x_{t-1} B_{t-1}^T + m_t dt_t x_t B_t^T and y_t = h_t C_t.

Let g_t = h_t + (1 - m_{t+1}) dt_{t+1} x_t B_t^T, which gives each input at once all that it will ever be
given. Then g_t = a_t g_{t-1} + (m_t dt_t + (1 - m_{t+1}) dt_{t+1}) x_t B_t^T is a recurrence of Mamba-2,
and y_t is g_t C_t less what was given too early, a product of tokens at t alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.layers.protocol import at_least_float32, full_precision
from helix_ssm.layers.sequences import Sequences
from helix_ssm.ops import ssd_scan


def trapezoidal_scan(
    x: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    log_decay: Tensor,
    mix: Tensor,
    *,
    state: Tensor,
    last_x: Tensor,
    last_B: Tensor,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run the recurrence in each head, with R inputs and R outputs a token that share one state.

    Of x float32 is made, and autocast kept out.

    Args:
        x: Inputs (B, L, R, H, P): R ranks of H heads of P channels.
        B: Input projections (B, L, R, H, N).
        C: Output projections (B, L, R, H, N).
        dt: Step sizes (B, L, H).
        log_decay: dt A (B, L, H).
        mix: How much of a step belongs to its own token, (B, L, H) in [0, 1]; 1 is Mamba-2's rule.
        state: State h before the first token (n, H, P, N).
        last_x: Inputs of the token before the first (n, R, H, P).
        last_B: Input projections of the token before the first (n, R, H, N).
        cu_seqlens: Bounds (n + 1,) of n sequences packed into one row.

    Returns:
        y (B, L, R, H, P) and the state after the last token (n, H, P, N), both float32 or wider.
    """
    with full_precision(x):
        x, last_x = at_least_float32(x), at_least_float32(last_x)
        sequences, (_, seq_len, rank, _, _) = Sequences(cu_seqlens), x.shape
        given_before = (1 - mix) * dt
        too_early = sequences.next(given_before)
        weight = mix * dt + too_early
        opening = torch.einsum("nh,nrhp,nrhs->nhps", sequences.first(given_before), last_x, last_B)
        rates = _each_token_as_ranks(log_decay, rank)
        y, state = ssd_scan(
            (weight[:, :, None, :, None] * x).flatten(1, 2),
            torch.ones_like(rates),
            rates,
            B.flatten(1, 2),
            C.flatten(1, 2),
            initial_state=state + opening,
            return_final_state=True,
            cu_seqlens=None if cu_seqlens is None else cu_seqlens * rank,
        )
        # A rank's output lacks what the ranks after it write at the same token.
        lacks = torch.ones(rank, rank, device=x.device, dtype=weight.dtype).triu(1)
        correction = weight[..., None, None] * lacks - too_early[..., None, None]
        scores = torch.einsum("blrhn,blshn->blhrs", C, B) * correction
        y = torch.unflatten(y, 1, (seq_len, rank)) + torch.einsum("blhrs,blshp->blrhp", scores, x)
        return y, state


def _each_token_as_ranks(log_decay: Tensor, rank: int) -> Tensor:
    """Lay (B, L, H) out as (B, L R, H): a token is R steps, of which the first one decays."""
    return F.pad(log_decay.unsqueeze(2), (0, 0, 0, rank - 1)).flatten(1, 2)
