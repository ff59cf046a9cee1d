"""The fusion `cross-attention`: each part's tokens look at those of the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.fusion.parts import checked_names, chosen, mean_of_present, stacked
from helix_multimodal.inputs import Tokens, join

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class CrossAttention(nn.Module):
    """x_p ← x_p + attention(x_p, tokens of the other parts), then y = W · mean over parts of their means.

    Attention is that of Vaswani et al. 2017, section 3.2; one part looking at another is the crossmodal block
    of Tsai et al. 2019, "Multimodal transformer for unaligned multimodal language sequences", section 3.1. A
    part whose others are all missing stays as it is.

    Args:
        d_model: Width of the tokens.
        d_out: Width of the fused vectors.
        parts: Names of what is fused.
        n_heads: Heads; a divisor of `d_model`.
        n_layers: How often the parts look at one another.

    Raises:
        ArgumentError: A size is below 1 or no divisor, there is no part, or one twice.
    """

    def __init__(
        self, d_model: int, d_out: int, parts: Sequence[str], *, n_heads: int = 4, n_layers: int = 1
    ) -> None:
        super().__init__()
        check_at_least("cross-attention", d_model=d_model, d_out=d_out, n_heads=n_heads, n_layers=n_layers)
        if d_model % n_heads:
            raise ArgumentError(f"cross-attention: n_heads is {n_heads}, allowed is a divisor of {d_model}")
        self.parts = checked_names("cross-attention", parts)
        n_layers = n_layers if len(self.parts) > 1 else 0  # one part has nobody to look at
        self.layers = nn.ModuleList(_Look(d_model, n_heads) for _ in range(n_layers))
        self.out_proj = nn.Linear(d_model, d_out)

    def forward(self, parts: Mapping[str, Tokens]) -> Tensor:
        """Return the fused vectors (B, d_out) of tokens (B, N, D) by part.

        Raises:
            ArgumentError: A part is missing from the mapping, or unknown.
        """
        tokens = chosen("cross-attention", parts, self.parts)
        for layer in self.layers:
            tokens = [
                layer(own, join([other for place, other in enumerate(tokens) if place != number]))
                for number, own in enumerate(tokens)
            ]
        means, present = stacked(tokens)
        fused: Tensor = self.out_proj(mean_of_present(means, present))
        return fused * present.any(1, keepdim=True)


class _Look(nn.Module):
    """x + W · attention(norm(x), norm(others)), zero where x is hidden."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm, self.norm_others = nn.RMSNorm(d_model), nn.RMSNorm(d_model)
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.kv_proj = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model, bias=False)

    def forward(self, own: Tokens, others: Tokens) -> Tokens:
        """Return the tokens (B, N, D) after a look at others (B, M, D)."""
        query = self._split(self.q_proj(self.norm(own.values)))
        key, value = map(self._split, self.kv_proj(self.norm_others(others.values)).chunk(2, -1))
        # A row that has nobody to look at looks at everything, which is undone below: a softmax over nothing
        # would be NaN.
        alone = ~others.present
        seen = (others.mask | alone[:, None])[:, None, None]
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        told = self.out_proj(found.transpose(1, 2).flatten(2))
        told = told * (~alone[:, None, None] & own.mask.unsqueeze(-1))
        return Tokens(own.values + told, own.mask)

    def _split(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 2, (self.n_heads, -1)).transpose(1, 2)
