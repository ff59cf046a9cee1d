"""The root-mean-square norm in few passes over memory, with its gradient written by hand."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Tensor:
    """Compute the op as its contract says."""
    dtype = compute_dtype(x, weight, z)
    gate = None if z is None else F.silu(z.to(dtype))
    s = x.to(dtype) if gate is None or norm_before_gate else gate.mul_(x)
    y = _normalise(s, eps, group_size)[0].mul_(weight.to(dtype))
    return (y.mul_(gate) if gate is not None and norm_before_gate else y).to(x.dtype)


def rms_norm_backward(
    grad_y: Tensor | None,
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate the norm, and the gate on the side of it where it is."""
    dtype = compute_dtype(x, weight, z)
    s, weight_ = x.to(dtype), weight.to(dtype)
    grad = torch.zeros_like(s) if grad_y is None else grad_y.to(dtype)
    if z is None:
        grad_s, grad_weight = _through_norm(grad, s, weight_, eps, group_size)
        return grad_s.to(x.dtype), grad_weight.to(weight.dtype), x.new_empty(0)
    gate = F.silu(z.to(dtype))
    if norm_before_gate:
        grad_s, grad_weight = _through_norm(grad * gate, s, weight_, eps, group_size)
        grad_gate = _normalise(s, eps, group_size)[0].mul_(weight_).mul_(grad)
    else:
        grad_gated, grad_weight = _through_norm(grad, s * gate, weight_, eps, group_size)
        grad_s, grad_gate = grad_gated * gate, grad_gated * s
    grad_z = torch.ops.aten.silu_backward(grad_gate, z.to(dtype))
    return grad_s.to(x.dtype).contiguous(), grad_weight.to(weight.dtype), grad_z.to(z.dtype).contiguous()


def _through_norm(
    grad: Tensor, s: Tensor, weight: Tensor, eps: float, group_size: int
) -> tuple[Tensor, Tensor]:
    """Return the gradients of s and the weight, given that of the weighted norm.

    With n = s r and g the gradient of n, that of s is r (g - n mean(g n)).
    """
    normed, scale = _normalise(s, eps, group_size)
    rows = tuple(range(s.dim() - 1))
    product = grad * normed
    grad_weight = product.sum(rows) if rows else product
    grad_normed = torch.unflatten(grad * weight, -1, (-1, group_size))
    groups = torch.unflatten(normed, -1, (-1, group_size))
    mean = torch.linalg.vecdot(grad_normed, groups).div_(group_size).unsqueeze(-1)
    grad_s = grad_normed.addcmul_(groups, mean, value=-1).mul_(scale)
    return grad_s.flatten(-2).contiguous(), grad_weight


def _normalise(s: Tensor, eps: float, group_size: int) -> tuple[Tensor, Tensor]:
    """Return s over its root mean square (..., D), contiguous, and the factor (..., D / group_size, 1)."""
    groups = torch.unflatten(s, -1, (-1, group_size))
    scale = torch.linalg.vecdot(groups, groups).div_(group_size).add_(eps).rsqrt_().unsqueeze(-1)
    return torch.mul(groups, scale).flatten(-2).contiguous(), scale
