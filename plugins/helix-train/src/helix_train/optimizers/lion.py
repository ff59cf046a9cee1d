"""The optimizer `lion`: the sign of an interpolated momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_train.optimizers.base import (
    DenseOptimizer,
    Group,
    check_at_least_0,
    check_shares,
    gradients_of,
    real,
)

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim.optimizer import ParamsT


class Lion(DenseOptimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

    A step with gradient g, momentum m and weights w is::

        w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w)
        m <- beta2 m + (1 - beta2) g

    Each weight moves by the learning rate exactly, so it should be 3 to 10 times smaller than AdamW's
    and `weight_decay` as many times larger (their section 5). Complex weights are treated as pairs.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate, at least 0.
        betas: Share of the momentum in the update, and the share that a step keeps; 0 to below 1.
        weight_decay: Share of a weight that a step removes, times the learning rate; at least 0.
        foreach: Update many tensors in one kernel. None does so on CUDA only.

    Raises:
        ArgumentError: An option is out of range, or a gradient is sparse.
    """

    name = "lion"

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "foreach": foreach})

    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range."""
        check_at_least_0(group, "lr", "weight_decay")
        check_shares(group, "betas")

    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""
        beta1, beta2 = group["betas"]
        values, gradients, momenta = real(weights), gradients_of(weights), self.slot(weights, "momentum")
        directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)  # noqa: SLF001 - torch has no public name
        torch._foreach_sign_(directions)
        torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(values, directions, alpha=-group["lr"])
        torch._foreach_lerp_(momenta, gradients, 1 - beta2)
