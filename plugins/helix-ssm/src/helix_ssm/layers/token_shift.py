"""The token before each token, which RWKV's layers mix into it."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_ssm.ops import causal_conv1d


def token_shift(x: Tensor, last: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the token before each one of x, and the last one.

    Args:
        x: Tokens (B, L, D), or n packed sequences (1, T, D).
        last: The token before the first (B, 1, D), or (n, 1, D); None for zeros.
        cu_seqlens: Bounds (n + 1,) of packed sequences, over which nothing is shifted.

    Returns:
        The shifted tokens, shaped as x; the last token of each row or sequence, shaped as `last`.
    """
    # A convolution with the taps (1, 0) is a shift, and knows about states and bounds already.
    taps = torch.stack([x.new_ones(x.shape[2]), x.new_zeros(x.shape[2])], -1)
    shifted, last = causal_conv1d(x, taps, initial_state=last, return_final_state=True, cu_seqlens=cu_seqlens)
    return shifted, last


def mix(x: Tensor, before: Tensor, share: Tensor) -> Tensor:
    """Return x with a `share` (D,) of the token before in the place of as much of its own, (B, L, D)."""
    return x + (before - x) * share
