"""The root-mean-square norm in few passes over memory, with its gradient written by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype


def rms_norm(x: Tensor, weight: Tensor, eps: float, z: Tensor | None) -> Tensor:
    """Compute the op as its contract says."""
    dtype = compute_dtype(x, weight, z)
    y = _normalise(x.to(dtype), eps)[0].mul_(weight.to(dtype))
    return (y if z is None else y.mul_(F.silu(z.to(dtype)))).to(x.dtype)


def rms_norm_backward(
    grad_y: Tensor | None, x: Tensor, weight: Tensor, eps: float, z: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate: with n = x r and g the gradient of n, that of x is r (g - n mean(g n))."""
    dtype = compute_dtype(x, weight, z)
    normed, scale = _normalise(x.to(dtype), eps)
    grad = torch.zeros_like(normed) if grad_y is None else grad_y.to(dtype)
    grad_z = x.new_empty(0)
    if z is not None:
        gate = z.to(dtype)
        grad_z = torch.ops.aten.silu_backward(grad * normed * weight.to(dtype), gate).to(z.dtype).contiguous()
        grad = grad * F.silu(gate)
    rows = tuple(range(x.dim() - 1))
    product = grad * normed
    grad_weight = product.sum(rows) if rows else product
    grad_normed = grad * weight.to(dtype)
    mean = torch.linalg.vecdot(grad_normed, normed).div_(x.shape[-1]).unsqueeze(-1)
    grad_x = grad_normed.addcmul_(normed, mean, value=-1).mul_(scale)
    return grad_x.to(x.dtype).contiguous(), grad_weight.to(weight.dtype), grad_z


def _normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Return x over its root mean square (..., D), contiguous, and the factor (..., 1)."""
    scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
    return torch.mul(x, scale).contiguous(), scale
