"""Sums of exponentials, Re sum_n w_n exp(t rate_n): what a diagonal linear system does to a sequence.

A system of D channels with N modes each obeys h_t = exp(rate) h_{t-1} + B x_t. Its powers exp(s rate) are
taken as exp(i S rate) exp(j rate) with s = i S + j: (L / S + S) exponentials a mode, and never (D, N, L)
of them. Rates and weights are real, or complex for pairs of conjugate modes; states and results are as
wide as they. Autocast leaves all of this alone.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.layers.protocol import full_precision

_STRIDE = 64


def impulse_response(rate: Tensor, weight: Tensor, seq_len: int) -> Tensor:
    """Return Re sum_n w_n exp(t rate_n) for t = 0..seq_len - 1.

    Args:
        rate: Logarithm of each mode (..., N).
        weight: Weight of each mode (..., N).
        seq_len: Number of times L.

    Returns:
        The kernel (..., L).
    """
    across, within = _powers(rate, seq_len)
    with full_precision(rate):
        blocks = torch.einsum("...ni,...nj->...ij", weight.unsqueeze(-1) * across, within)
    return blocks.real.flatten(-2)[..., :seq_len]


def free_response(rate: Tensor, weight: Tensor, state: Tensor, seq_len: int) -> Tensor:
    """Return what the state alone adds to the outputs: Re sum_n w_n exp((t + 1) rate_n) h_n.

    Args:
        rate: Logarithm of each mode (D, N).
        weight: Weight of each mode (D, N).
        state: State before the chunk (B, D, N).
        seq_len: Length L of the chunk.

    Returns:
        Outputs (B, L, D).
    """
    across, within = _powers(rate, seq_len)
    with full_precision(rate):
        first = (torch.exp(rate) * weight * state).unsqueeze(-1)
        blocks = torch.einsum("bdni,dnj->bijd", first * across, within.to(first.dtype))
    return blocks.real.flatten(1, 2)[:, :seq_len]


def final_state(rate: Tensor, B: Tensor, state: Tensor, x: Tensor) -> Tensor:
    """Return the state after a chunk: exp(L rate) h + B sum over s of exp((L - 1 - s) rate) x_s.

    Args:
        rate: Logarithm of each mode (D, N).
        B: Factor with which inputs enter each mode (D, N).
        state: State before the chunk (B, D, N).
        x: Inputs of the chunk (B, L, D), float32 or wider.

    Returns:
        The state (B, D, N).
    """
    seq_len = x.shape[1]
    across, within = _powers(rate, seq_len)
    n_blocks, stride = across.shape[-1], within.shape[-1]
    with full_precision(rate):
        # Zeros before the chunk change nothing, and powers count from its end.
        padded = F.pad(x, (0, 0, n_blocks * stride - seq_len, 0)).to(within.dtype)
        blocks = padded.view(len(x), n_blocks, stride, x.shape[2])
        entered = torch.einsum("bijd,dnj->bdni", blocks, within.flip(-1)) * across.flip(-1)
        return torch.exp(seq_len * rate) * state + B * entered.sum(-1)


def _powers(rate: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return exp(i S rate) for each block (..., N, I) and exp(j rate) within a block (..., N, S)."""
    stride = max(1, min(_STRIDE, length))
    return _exponentials(stride * rate, -(-length // stride)), _exponentials(rate, stride)


def _exponentials(rate: Tensor, length: int) -> Tensor:
    """Return exp(s rate) for s = 0..length - 1, (..., N, length)."""
    s = torch.arange(length, device=rate.device, dtype=rate.real.dtype)
    return torch.exp(rate.unsqueeze(-1) * s)
