"""Where tokens are, along any number of axes, as vectors that are added to theirs."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError, did_you_mean

PositionsKind = Literal["none", "sinusoidal", "learned"]


class Positions(nn.Module):
    """Sines and cosines of each token's place on a grid of any size, or a learnt map of them.

    Vaswani et al. (2017), arXiv:1706.03762, section 3.5, on each axis: sin(p w) and cos(p w) with w from 1
    down to 1/10000. Frequencies and axes take turns over the D channels, so that a small D holds the high
    frequencies of all axes. ``learned`` puts them through a linear map, and so knows places that it never saw
    in training; a table of vectors would not.

    Args:
        d_model: Width D.
        n_axes: Axes of the grid.
        kind: none, sinusoidal or learned.

    Raises:
        ArgumentError: There is no such kind.
    """

    def __init__(self, d_model: int, n_axes: int, kind: PositionsKind) -> None:
        super().__init__()
        if kind not in get_args(PositionsKind):
            guess = did_you_mean(kind, get_args(PositionsKind))
            raise ArgumentError(f"positions is {kind!r}, allowed is {get_args(PositionsKind)}{guess}")
        self.d_model, self.n_axes, self.kind = d_model, n_axes, kind
        self.proj = nn.Linear(d_model, d_model, bias=False) if kind == "learned" else nn.Identity()

    def forward(self, grid: tuple[int, ...], like: Tensor) -> Tensor:
        """Return vectors (product of the grid, D) for its places in C order, in the dtype of `like`."""
        if self.kind == "none":
            return like.new_zeros(1, self.d_model)
        vectors: Tensor = self.proj(_sinusoids(grid, self.d_model, like.device).to(like.dtype))
        return vectors


def _sinusoids(grid: tuple[int, ...], d_model: int, device: torch.device) -> Tensor:
    """Return (product of the grid, d_model) float64."""
    n_axes = len(grid)
    n_frequencies = -(-d_model // (2 * n_axes))
    axes = [torch.arange(length, device=device, dtype=torch.float64) for length in grid]
    places = torch.cartesian_prod(*axes).view(-1, 1, n_axes)
    powers = torch.arange(n_frequencies, device=device, dtype=torch.float64) / max(1, n_frequencies - 1)
    angles = places * (10000.0**-powers).view(1, -1, 1)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)[:, :d_model]
