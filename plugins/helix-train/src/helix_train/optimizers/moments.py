"""The step of Adam, of lists of tensors, for the optimizers that are Adam in part."""

from __future__ import annotations

import torch
from torch import Tensor


def adam_direction(
    gradients: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: list[int],
    *,
    betas: tuple[float, float],
    eps: float,
) -> list[Tensor]:
    """Update both moments and return what a step follows (Kingma & Ba 2015, algorithm 1).

    Args:
        gradients: Gradients g.
        first: Running means m of g, changed in place.
        second: Running means v of g**2, changed in place.
        steps: How many steps each has had, this one included.
        betas: Shares of m and of v that a step keeps.
        eps: Added to the root of v.

    Returns:
        ``(m / (1 - beta1**t)) / (sqrt(v / (1 - beta2**t)) + eps)`` for each.
    """
    torch._foreach_lerp_(first, gradients, 1 - betas[0])
    torch._foreach_mul_(second, betas[1])
    torch._foreach_addcmul_(second, gradients, gradients, value=1 - betas[1])
    return normalized(first, second, steps, betas=betas, eps=eps)


def normalized(
    first: list[Tensor],
    second: list[Tensor],
    steps: list[int],
    *,
    betas: tuple[float, float],
    eps: float,
) -> list[Tensor]:
    """Return m over the root of v, each freed of its bias to zero; see `adam_direction`."""
    roots = torch._foreach_div(second, [1 - betas[1] ** step for step in steps])  # noqa: SLF001 - torch has no public name
    torch._foreach_sqrt_(roots)
    torch._foreach_add_(roots, eps)
    directions = torch._foreach_div(first, [1 - betas[0] ** step for step in steps])  # noqa: SLF001 - as above
    torch._foreach_div_(directions, roots)
    return list(directions)
