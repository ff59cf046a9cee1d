"""A residual's sum and its root-mean-square norm, by the norm of this backend."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_ssm.ops.chunked.rms_norm import rms_norm, rms_norm_backward


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    total = (x + residual).contiguous()
    return rms_norm(total, weight, eps, None, total.shape[-1], True), total


def add_rms_norm_backward(
    grad_y: Tensor | None, grad_total: Tensor | None, x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the gradient of the sum to that which comes through the norm; it is of both summands."""
    total = x + residual
    grad, grad_weight, _ = rms_norm_backward(grad_y, total, weight, eps, None, total.shape[-1], True)
    if grad_total is not None:
        grad = grad + grad_total
    return (
        grad.to(x.dtype).contiguous(),
        torch.empty_like(grad, dtype=residual.dtype).copy_(grad),  # results share no memory
        grad_weight,
    )
