"""Rotary position embedding of Su et al. (2021), RoFormer, arXiv:2104.09864."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_ssm.layers.protocol import at_least_float32


def rotate(x: Tensor, positions: Tensor, *, theta: float) -> Tensor:
    """Rotate each pair of channels of a head by an angle proportional to its token's position.

    Equation 34 of the paper: pair i turns by position * theta^(-2 i / K). Channel i is paired with
    i + K / 2, as in Llama's published weights; the paper pairs neighbours, which is another order of the
    same channels. The angles are made in float64, since at position 10⁶ float32 would be off by 0.06.

    Args:
        x: Queries or keys (..., L, K), K even.
        positions: Integer positions, broadcastable to (..., L).
        theta: Base of the frequencies, 10000 in the paper.

    Returns:
        The rotated x, in its dtype.
    """
    half = x.shape[-1] // 2
    exponents = torch.arange(half, device=x.device, dtype=torch.float64) / half
    angles = positions.to(torch.float64).unsqueeze(-1) * theta**-exponents
    wide = at_least_float32(x)
    cos, sin = angles.cos().to(wide.dtype), angles.sin().to(wide.dtype)
    first, second = wide.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)
