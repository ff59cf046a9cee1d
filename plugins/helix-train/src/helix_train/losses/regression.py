"""Losses of the difference between two tensors of one shape."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_train.losses.base import Loss, Reduction


class MSE(Loss):
    """Squared difference, (prediction - target)**2.

    Prediction and target have the same shape; the target is converted to the prediction's dtype.

    Args:
        reduction: See `Loss`.
    """

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        return F.mse_loss(prediction, target.to(prediction.dtype), reduction="none")


class L1(Loss):
    """Absolute difference, abs(prediction - target).

    Prediction and target have the same shape; the target is converted to the prediction's dtype.

    Args:
        reduction: See `Loss`.
    """

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        return F.l1_loss(prediction, target.to(prediction.dtype), reduction="none")


class SmoothL1(Loss):
    """Squared difference near zero, absolute further out (Girshick 2015, "Fast R-CNN", equation 3).

    With d = abs(prediction - target): d**2 / (2 beta) where d < beta, else d - beta / 2. Prediction and
    target have the same shape; the target is converted to the prediction's dtype.

    Args:
        beta: Difference at which the parabola becomes a straight line, above 0.
        reduction: See `Loss`.

    Raises:
        ArgumentError: `beta` is not above 0.
    """

    def __init__(self, *, beta: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction=reduction)
        if not beta > 0:
            raise ArgumentError(f"beta is {beta!r}, allowed is > 0 (for beta = 0 use l1)")
        self.beta = beta

    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element."""
        return F.smooth_l1_loss(prediction, target.to(prediction.dtype), beta=self.beta, reduction="none")

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"beta={self.beta}, {super().extra_repr()}"
