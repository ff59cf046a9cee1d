"""The alignment `sinkhorn`: what it costs to move one set of tokens onto another, with some entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_multimodal.alignment.pairs import Directions, Scale, both_there, costs, precise
from helix_multimodal.checks import check_at_least

if TYPE_CHECKING:
    from helix_multimodal.inputs import Tokens

_SAFE = 0.05
_NOTHING = -1e9
"""Logarithm of the mass of a token that is not there; finite, so that gradients are."""


class Sinkhorn(nn.Module):
    """s_ij = -<P_ij, C_ij> / τ, where C is 1 - cosine of the tokens and P moves equal masses at least cost.

    Cuturi 2013, arXiv:1306.0895, in the logarithmic domain of Peyré & Cuturi 2019, "Computational optimal
    transport", remark 4.23. The order of the tokens does not matter.

    Args:
        d_model: Width of the tokens.
        epsilon: Weight of the plan's entropy.
        n_iterations: Iterations that the plan is found by.
        temperature: τ at first.

    Raises:
        ArgumentError: A number is out of range.
    """

    reads: Literal["tokens"] = "tokens"

    def __init__(
        self, d_model: int, *, epsilon: float = 0.1, n_iterations: int = 20, temperature: float = 0.07
    ) -> None:
        super().__init__()
        check_at_least("sinkhorn", d_model=d_model, n_iterations=n_iterations)
        _check_epsilon(epsilon)
        self.epsilon, self.n_iterations = epsilon, n_iterations
        self.directions = Directions(d_model)
        self.scale = Scale(temperature)

    def forward(self, x: Tokens, y: Tokens) -> Tensor:
        """Return scores (B of x, B of y)."""
        left, right = self.directions(x, y)
        cost = costs(left, right)
        masses = _log_masses(left.mask, cost.dtype)[:, None], _log_masses(right.mask, cost.dtype)[None]
        # Costs are 2 at most, so that above a small epsilon their exponentials need no logarithmic domain.
        find = transport if self.epsilon < _SAFE else _scaled_transport
        # Nor may products be made in float16, as autocast would: e^-40 is below its range.
        with torch.autocast(cost.device.type, enabled=False):
            plan = find(cost, *masses, epsilon=self.epsilon, n_iterations=self.n_iterations)
        return both_there(self.scale(-(plan * cost).sum((-2, -1))), x.present, y.present)


def transport(cost: Tensor, log_a: Tensor, log_b: Tensor, *, epsilon: float, n_iterations: int) -> Tensor:
    """Return the plan P that moves masses a onto b at least <P, C> - ε H(P).

    Args:
        cost: C (…, N, M) floating; half precision is taken as float32.
        log_a: Logarithms of masses (…, N), broadcast to the cost; -1e9 for none.
        log_b: Of those (…, M) that they are moved onto, of equal sum.
        epsilon: ε.
        n_iterations: How often both margins are met in turn; those of b are met exactly.

    Returns:
        P (…, N, M), whose sums over M near a, and over N are b.

    Raises:
        ArgumentError: A number is out of range.
    """
    _check_epsilon(epsilon)
    check_at_least("transport", n_iterations=n_iterations)
    cost, log_a, log_b = precise(cost), precise(log_a), precise(log_b)
    kernel = -cost / epsilon
    g = torch.zeros_like(cost[..., 0, :])
    f = torch.zeros_like(cost[..., :, 0])
    for _ in range(n_iterations):
        f = log_a - torch.logsumexp(kernel + g.unsqueeze(-2), -1)
        g = log_b - torch.logsumexp(kernel + f.unsqueeze(-1), -2)
    return (kernel + f.unsqueeze(-1) + g.unsqueeze(-2)).exp()


def _scaled_transport(
    cost: Tensor, log_a: Tensor, log_b: Tensor, *, epsilon: float, n_iterations: int
) -> Tensor:
    """Return what `transport` does, by products of matrices (Cuturi 2013, algorithm 1), which is faster."""
    kernel = (-cost / epsilon).exp()
    a, b = log_a.exp().expand(cost.shape[:-1]), log_b.exp().expand(*cost.shape[:-2], cost.shape[-1])
    v = torch.ones_like(b)
    u = a
    for _ in range(n_iterations):
        u = a / (kernel @ v.unsqueeze(-1)).squeeze(-1)
        v = b / (u.unsqueeze(-2) @ kernel).squeeze(-2)
    return u.unsqueeze(-1) * kernel * v.unsqueeze(-2)


def _log_masses(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return logarithms of equal masses of the visible tokens, (B, N); where there is none, of the first."""
    count = mask.sum(1, keepdim=True)
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    shown = mask | ((count == 0) & first)
    masses = -count.clamp(min=1).to(dtype).log().expand(mask.shape)
    return masses.masked_fill(~shown, _NOTHING)


def _check_epsilon(epsilon: float) -> None:
    if not epsilon > 0:
        raise ArgumentError(f"sinkhorn: epsilon is {epsilon!r}, allowed is > 0")
