"""A residual's sum, by PyTorch, and its root-mean-square norm, by this backend's kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.arguments import serves
from helix_cpu.ops.rms_norm import rms_norm, rms_norm_backward

if TYPE_CHECKING:
    from torch import Tensor


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Any:
    """Compute the op as its contract says; not of float64."""
    if not serves(x, residual, weight):
        return NotImplemented
    total = (x + residual).contiguous()
    return rms_norm(total, weight, eps, None, total.shape[-1], norm_before_gate=True), total


def add_rms_norm_backward(
    grad_y: Tensor | None, grad_total: Tensor | None, x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(x, residual, weight):
        return NotImplemented
    total = x + residual
    through_norm = torch.zeros_like(total) if grad_y is None else grad_y
    grad, grad_weight, _ = rms_norm_backward(
        through_norm, total, weight, eps, None, total.shape[-1], norm_before_gate=True
    )
    if grad_total is not None:
        grad = grad.add_(grad_total)
    return (
        grad.to(x.dtype),
        torch.empty_like(grad, dtype=residual.dtype).copy_(grad),  # results share no memory
        grad_weight,
    )
