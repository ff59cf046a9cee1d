"""The fusion `low-rank-bilinear`: products of projections of the parts, a tensor product of low rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen, stacked

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from helix_multimodal.inputs import Tokens


class LowRankBilinear(nn.Module):
    """y = Σ_r w_r · Π over the parts that are there of (U_p,r m_p + u_p,r) + b.

    Low-rank multimodal fusion (Liu et al. 2018, arXiv:1806.00064, section 3.2, equation 7): the outer product
    of all parts' vectors [m_p; 1] times a tensor, which is never made, since it is a sum of `rank` outer
    products. A missing part's factor is one, so that the product is that of the others.

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        parts: Names of what is fused.
        rank: Rank of the tensor.

    Raises:
        ArgumentError: A size is below 1, there is no part, or one twice.
    """

    def __init__(self, d_model: int, d_out: int, parts: Sequence[str], *, rank: int = 8) -> None:
        super().__init__()
        check_at_least("low-rank-bilinear", d_model=d_model, d_out=d_out, rank=rank)
        self.parts = checked_names("low-rank-bilinear", parts)
        self.shape = (rank, d_out)
        factors = [nn.Linear(d_model, rank * d_out) for _ in self.parts]
        for factor in factors:
            nn.init.ones_(factor.bias)  # a product of small numbers would vanish
        self.factors = nn.ModuleList(factors)
        self.weight = nn.Parameter(torch.randn(rank, 1) / rank**0.5)
        self.bias = nn.Parameter(torch.zeros(d_out))

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        means, present = stacked(chosen("low-rank-bilinear", parts, self.parts))
        product = means.new_ones(len(means), *self.shape)
        for number, factor in enumerate(self.factors):
            one = factor(means[:, number]).view(product.shape)
            product = product * torch.where(present[:, number, None, None], one, torch.ones_like(one))
        fused = (self.weight * product).sum(1) + self.bias
        return fused * present.any(1, keepdim=True)
