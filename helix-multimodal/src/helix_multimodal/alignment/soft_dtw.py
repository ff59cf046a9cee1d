"""The alignment `soft-dtw`: what it costs to warp one sequence onto another, softly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.pairs import Directions, Scale, both_there, costs
from helix_multimodal.checks import check_at_least

if TYPE_CHECKING:
    from helix_multimodal.inputs import Tokens

_FAR = 1e8
"""Cost of what is no way to warp; finite, so that gradients are."""


class SoftDTW(nn.Module):
    """s_ij = -(soft-DTW of 1 - cosine of the tokens) / (N_i + M_j) / τ.

    Cuturi & Blondel 2017, arXiv:1703.01541, equation 2. With `divergence` it is that of Blondel et al. 2021,
    arXiv:2010.08354, equation 11, which takes off half of what each sequence costs with itself: the soft
    minimum is below the hard one, the more so the longer the sequences.

    Args:
        d_model: Width of the tokens.
        gamma: Softness of the minimum.
        divergence: Whether the sequences' costs with themselves are taken off.
        temperature: τ at first.

    Raises:
        ArgumentError: A number is out of range.
    """

    reads: Literal["tokens"] = "tokens"

    def __init__(
        self, d_model: int, *, gamma: float = 0.1, divergence: bool = True, temperature: float = 0.07
    ) -> None:
        super().__init__()
        check_at_least("soft-dtw", d_model=d_model)
        _check_gamma(gamma)
        self.gamma, self.divergence = gamma, divergence
        self.directions = Directions(d_model)
        self.scale = Scale(temperature)

    def forward(self, x: Tokens, y: Tokens) -> Tensor:
        """Return scores (B of x, B of y)."""
        left, right = self.directions(x, y)
        n, m = left.mask.sum(1), right.mask.sum(1)
        lengths = n[:, None].expand(-1, len(m)), m[None].expand(len(n), -1)
        warped = soft_dtw(costs(left, right), *lengths, gamma=self.gamma)
        if self.divergence:
            own = _with_itself(left, self.gamma)[:, None] + _with_itself(right, self.gamma)[None]
            warped = warped - own / 2
        return both_there(self.scale(-warped / (n[:, None] + m[None]).clamp(min=1)), x.present, y.present)


def soft_dtw(cost: Tensor, n: Tensor, m: Tensor, *, gamma: float) -> Tensor:
    """Return the soft minimum, over all ways to warp one sequence onto another, of what a way costs.

    r_ij = c_ij + softmin(r_i-1,j-1, r_i-1,j, r_i,j-1), softmin(a) = -gamma log Σ exp(-a / gamma): Cuturi &
    Blondel 2017, algorithm 1, an anti-diagonal at a time. As gamma nears 0 it is dynamic time warping.

    Args:
        cost: (…, N, M) floating.
        n: How many rows of each matrix count, integers (…), from the first.
        m: How many columns.
        gamma: The softness, above 0.

    Returns:
        (…); for a sequence of no elements a number that means nothing.

    Raises:
        ArgumentError: gamma is not above 0.
    """
    _check_gamma(gamma)
    shape = cost.shape[:-2]
    flat = cost.flatten(0, -3) if shape else cost[None]
    n_rows, n_columns = flat.shape[-2:]
    skewed = _skewed(flat)  # (P, N, N + M - 1): diagonal k holds c[i, k - i]
    border = flat.new_full((len(flat), 1), _FAR)
    before = flat.new_full((len(flat), n_rows + 1), _FAR)
    last = before.clone()
    before[:, 0] = 0  # nothing of either is warped yet
    diagonals = []
    for k in range(n_rows + n_columns - 1):
        ways = torch.stack([before[:, :-1], last[:, :-1], last[:, 1:]])
        least = -gamma * torch.logsumexp(-ways / gamma, 0)
        here = torch.cat([border, (skewed[:, :, k] + least).clamp(max=_FAR)], 1)
        diagonals.append(here[:, 1:])
        before, last = last, here
    ends = torch.stack(diagonals, 1)  # (P, N + M - 1, N)
    rows = (n.reshape(-1) - 1).clamp(min=0)
    places = (rows + (m.reshape(-1) - 1).clamp(min=0)) * n_rows + rows
    found = ends.flatten(1).gather(1, places[:, None])[:, 0]
    return found.view(shape)


def _skewed(cost: Tensor) -> Tensor:
    """Return matrices (P, N, M) with row i moved i places to the right, (P, N, N + M - 1)."""
    n_rows, n_columns = cost.shape[-2:]
    width = n_rows + n_columns - 1
    # Each row is made one longer than it ends up, so that the next begins one place further on.
    wide = F.pad(cost, (0, n_rows), value=_FAR)
    return wide.flatten(1)[:, : n_rows * width].view(len(cost), n_rows, width)


def _with_itself(tokens: Tokens, gamma: float) -> Tensor:
    """Return what each sequence costs with itself, (B,)."""
    cost = 1 - torch.einsum("bnd,bmd->bnm", tokens.values, tokens.values)
    length = tokens.mask.sum(1)
    return soft_dtw(cost, length, length, gamma=gamma)


def _check_gamma(gamma: float) -> None:
    if not gamma > 0:
        raise ArgumentError(f"soft-dtw: gamma is {gamma!r}, allowed is > 0")
