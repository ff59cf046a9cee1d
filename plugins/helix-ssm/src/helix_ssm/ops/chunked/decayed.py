"""Products of the tokens of a chunk, channel by channel weighed by what decays between them.

A decay between two tokens is a product of gates, each at most 1. As the ratio of two longer products it
would overflow under strong gates, and with every channel having its own there is no matrix product of
the plain tokens to weigh afterwards. Yang et al. 2023 (https://arxiv.org/abs/2312.06635, section 4.3)
therefore cut chunks into sub-chunks. Here every chunk is cut in halves, and these again: what a late
half reads of an early one decays from the token to the border and on from the border to the reader, so
that no factor exceeds 1, nothing is divided, and all halves of one size are one matrix product.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor


class Decayed(NamedTuple):
    """What `decayed_products` returns.

    Attributes:
        products: Readers by tokens (..., C R, C S), zero for tokens after the reader.
        from_start: Decay from before the chunk to after each token (..., C, K).
        to_end: Decay from after each token to the chunk's end (..., C, K).
    """

    products: Tensor
    from_start: Tensor
    to_end: Tensor


def decayed_products(x: Tensor, y: Tensor, gates: Tensor) -> Decayed:
    """Compute sum over k of x_ik y_jk gate_(j+1)k ... gate_ik for the tokens j <= i of each chunk.

    Args:
        x: R readers a token (..., C, R, K), C a power of two.
        y: S writes a token (..., C, S, K).
        gates: What is left of each channel at each token (..., C, K), in [0, 1].
    """
    *batch, length, n_readers, k_dim = x.shape
    n_writes = y.shape[-2]
    products = x @ y.mT
    from_start, to_end = gates.unsqueeze(-2), torch.ones_like(gates).unsqueeze(-2)
    half = 1
    while half < length:
        pairs = (*batch, length // half // 2, 2, half)
        early_from, late_from = from_start.view(*pairs, k_dim).unbind(-3)
        early_to, late_to = to_end.view(*pairs, k_dim).unbind(-3)
        _, readers = x.reshape(*pairs, n_readers, k_dim).unbind(-4)
        writes, _ = y.reshape(*pairs, n_writes, k_dim).unbind(-4)
        across = _weigh(readers, late_from) @ _weigh(writes, early_to).mT
        early, late = products.view(*pairs[:-1], half * n_readers, half * n_writes).unbind(-3)
        products = torch.cat([F.pad(early, (0, half * n_writes)), torch.cat([across, late], -1)], -2)
        from_start = torch.cat([early_from, late_from * early_from[..., -1:, :]], -2)
        to_end = torch.cat([early_to * late_from[..., -1:, :], late_to], -2)
        half *= 2
    return Decayed(products.squeeze(-3), from_start.squeeze(-3), to_end.squeeze(-3))


def _weigh(rows: Tensor, decay: Tensor) -> Tensor:
    """Weigh rows (..., T, R, K) by the decay (..., T, K) of their tokens; returns (..., T R, K)."""
    return (rows * decay.unsqueeze(-2)).flatten(-3, -2)
