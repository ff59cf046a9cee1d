"""What alignments share: a learned temperature, tokens as directions, and their costs for all pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.inputs import Tokens

_MOST = math.log(100)  # Radford et al. 2021, section 2.5: scores are scaled by no more


class Scale(nn.Module):
    """Multiplies scores by a learned number, no more than 100.

    Args:
        temperature: Its reciprocal is the number at first.

    Raises:
        ArgumentError: It is not above 0.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ArgumentError(f"temperature is {temperature!r}, allowed is > 0")
        self.log_scale = nn.Parameter(torch.tensor(min(_MOST, -math.log(temperature))))

    def forward(self, scores: Tensor) -> Tensor:
        """Return scores of any shape, scaled."""
        # Folded back at the bound, not clamped: above it a clamp has no gradient, and training would stick.
        return scores * (_MOST - (_MOST - self.log_scale).abs()).exp()


class Directions(nn.Module):
    """Projects tokens of both sides and brings them to length 1, the visible ones of each row to its front.

    Args:
        d_model: Width of the tokens.
    """

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.x_proj, self.y_proj = nn.Linear(d_model, d_model), nn.Linear(d_model, d_model)

    def forward(self, x: Tokens, y: Tokens) -> tuple[Tokens, Tokens]:
        """Return both sides' tokens (B, N, D), hidden ones zero."""
        return _unit(self.x_proj, in_front(x)), _unit(self.y_proj, in_front(y))


def in_front(tokens: Tokens) -> Tokens:
    """Return tokens (B, N, D) with the visible ones of each row first, then zeros; N is 1 at least."""
    if not tokens.mask.shape[1]:
        return Tokens(F.pad(tokens.values, (0, 0, 0, 1)), F.pad(tokens.mask, (0, 1)))
    order = torch.argsort((~tokens.mask).long(), dim=1, stable=True)
    values = tokens.values.masked_fill(~tokens.mask.unsqueeze(-1), 0)
    values = values.gather(1, order.unsqueeze(-1).expand_as(values))
    return Tokens(values, tokens.mask.gather(1, order))


def costs(x: Tokens, y: Tokens) -> Tensor:
    """Return 1 - cosine of all pairs of directions, (B of x, B of y, N, M), float32 at least."""
    return 1 - precise(torch.einsum("and,bmd->abnm", x.values, y.values))


def precise(x: Tensor) -> Tensor:
    """Return half precision as float32: sums of many exponentials need the digits, and costs the range."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def both_there(scores: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return scores (B of x, B of y), 0 where either is missing: `x` and `y` say which are there."""
    return scores.masked_fill(~(x[:, None] & y[None]), 0)


def _unit(proj: nn.Linear, tokens: Tokens) -> Tokens:
    values = F.normalize(proj(tokens.values), dim=-1) * tokens.mask.unsqueeze(-1)
    return Tokens(values, tokens.mask)
