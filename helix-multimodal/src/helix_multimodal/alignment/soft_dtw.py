"""The alignment `soft-dtw`: what it costs to warp one sequence onto another, softly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.pairs import Directions, Scale, both_there, costs, precise
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
        cost: (…, N, M) floating, N and M 1 at least. It has gradients, but no gradients of gradients.
        n: How many rows of each matrix count, integers (…), from the first.
        m: How many columns.
        gamma: The softness, above 0.

    Returns:
        (…), float32 at least; for a sequence of no elements a number that means nothing.

    Raises:
        ArgumentError: gamma is not above 0.
    """
    _check_gamma(gamma)
    shape = cost.shape[:-2]
    flat = precise(cost.flatten(0, -3) if shape else cost[None])
    n_rows = flat.shape[-2]
    rows = (n.reshape(-1) - 1).clamp(min=0)
    diagonals = rows + (m.reshape(-1) - 1).clamp(min=0)
    found: Tensor = _Warp.apply(_skewed(flat), diagonals * n_rows + rows, gamma)  # type: ignore[no-untyped-call]  # torch's own stub lacks its types
    return found.view(shape)


class _Warp(torch.autograd.Function):
    """The recursion over anti-diagonals and, backwards, the expected alignment (algorithm 2)."""

    @staticmethod
    def forward(ctx: Any, skewed: Tensor, ends: Tensor, gamma: float) -> Tensor:
        """Return r at the ends (P,) of skewed costs (P, N, K), as places in (K, N)."""
        n_pairs, n_rows, n_diagonals = skewed.shape
        border = skewed.new_full((n_pairs, 1), _FAR)
        before, last = skewed.new_full((2, n_pairs, n_rows + 1), _FAR).unbind()
        before[:, 0] = 0  # nothing of either is warped yet
        found, weights = [], []
        for k in range(n_diagonals):
            ways = torch.stack([before[:, :-1], last[:, :-1], last[:, 1:]])  # from i-1 and j-1, i-1, j-1
            least = ways.amin(0)
            shares = ((least - ways) / gamma).exp_()
            total = shares.sum(0)
            weights.append(shares / total)
            here = (skewed[:, :, k] + least - gamma * total.log()).clamp_(max=_FAR)
            found.append(here)
            before, last = last, torch.cat([border, here], 1)
        ctx.save_for_backward(torch.stack(weights), ends)
        return torch.stack(found, 1).flatten(1).gather(1, ends[:, None])[:, 0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return how much of each cell ways pass through, weighed by the gradient of their ends."""
        weights, ends = ctx.saved_tensors
        n_diagonals, _, n_pairs, n_rows = weights.shape
        passed = gradients[0].new_zeros(n_pairs, n_diagonals * n_rows)
        passed = passed.scatter(1, ends[:, None], gradients[0][:, None]).view(n_pairs, n_diagonals, n_rows)
        for k in reversed(range(n_diagonals)):
            corner, above, beside = (passed[:, k] * weights[k]).unbind()
            if k >= 1:
                passed[:, k - 1, :-1] += above[:, 1:]
                passed[:, k - 1] += beside
            if k >= 2:
                passed[:, k - 2, :-1] += corner[:, 1:]
        return passed.transpose(1, 2), None, None


def _skewed(cost: Tensor) -> Tensor:
    """Return matrices (P, N, M) with row i moved i places to the right, (P, N, N + M - 1)."""
    n_rows, n_columns = cost.shape[-2:]
    width = n_rows + n_columns - 1
    # Each row is made one longer than it ends up, so that the next begins one place further on.
    wide = F.pad(cost, (0, n_rows), value=_FAR)
    return wide.flatten(1)[:, : n_rows * width].view(len(cost), n_rows, width)


def _with_itself(tokens: Tokens, gamma: float) -> Tensor:
    """Return what each sequence costs with itself, (B,)."""
    cost = 1 - precise(torch.einsum("bnd,bmd->bnm", tokens.values, tokens.values))
    length = tokens.mask.sum(1)
    return soft_dtw(cost, length, length, gamma=gamma)


def _check_gamma(gamma: float) -> None:
    if not gamma > 0:
        raise ArgumentError(f"soft-dtw: gamma is {gamma!r}, allowed is > 0")
