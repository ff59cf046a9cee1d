"""Vectors for the places of a grid, that ask the tokens what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.positions import Positions

if TYPE_CHECKING:
    from helix_multimodal.inputs import Tokens


class GridQueries(nn.Module):
    """Places of a grid, each through cross-attention to the tokens and a network of its own, in some layers.

    As the queries of Perceiver IO (Jaegle et al. 2021, arXiv:2107.14795, section 3.2): a query is a learnt
    map of the sines of its place. Tokens are told by their number in their row. One token more, which is
    learnt, is always there, so that a row without tokens is defined.

    Args:
        d_model: Width D.
        n_axes: Axes of the grid.
        n_layers: Rounds of attention and network.
        n_heads: Heads of the attention.

    Raises:
        ArgumentError: The heads do not divide D.
    """

    def __init__(self, d_model: int, n_axes: int, *, n_layers: int, n_heads: int) -> None:
        super().__init__()
        if d_model % n_heads:
            raise ArgumentError(f"n_heads is {n_heads}, allowed is a divisor of d_model={d_model}")
        self.places = Positions(d_model, n_axes, "learned")
        self.numbers = Positions(d_model, 1, "learned")
        self.nothing = nn.Parameter(torch.randn(d_model))
        self.blocks = nn.ModuleList(_Block(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.RMSNorm(d_model)

    def forward(self, tokens: Tokens, grid: tuple[int, ...]) -> Tensor:
        """Return vectors (B, product of the grid, D)."""
        values, mask = tokens
        ranks = (mask.cumsum(1) - 1).clamp(min=0)
        told = values + self.numbers((max(1, mask.shape[1]),), values)[ranks]
        nothing = self.nothing.expand(len(values), 1, -1)
        known = torch.cat([nothing, told.masked_fill(~mask.unsqueeze(-1), 0)], 1)
        visible = F.pad(mask, (1, 0), value=True)
        x = self.places(grid, values).expand(len(values), -1, -1)
        for block in self.blocks:
            x = block(x, known, visible)
        found: Tensor = self.norm(x)
        return found


class _Block(nn.Module):
    """x + attention(norm(x), norm(tokens)), then x + network(norm(x))."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norms = nn.ModuleList(nn.RMSNorm(d_model) for _ in range(3))
        self.q_proj = nn.Linear(d_model, d_model, bias=False)
        self.kv_proj = nn.Linear(d_model, 2 * d_model, bias=False)
        self.out_proj = nn.Linear(d_model, d_model)
        self.network = nn.Sequential(
            nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model)
        )

    def forward(self, x: Tensor, known: Tensor, visible: Tensor) -> Tensor:
        q = self._heads(self.q_proj(self.norms[0](x)))
        k, v = (self._heads(each) for each in self.kv_proj(self.norms[1](known)).chunk(2, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible[:, None, None])
        x = x + self.out_proj(mixed.transpose(1, 2).flatten(2))
        y: Tensor = x + self.network(self.norms[2](x))
        return y

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)
