"""The grouped linear map as one product a group, in the dtype of its rows, written straight into place."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_ssm.ops._check import segments


def grouped_linear(x: Tensor, weight: Tensor, bounds: Tensor) -> Tensor:
    """Compute the op as its contract says."""
    y = x.new_empty(x.shape[0], weight.shape[1])
    matrices = weight.to(x.dtype)
    for group, (start, end) in enumerate(segments(bounds, x.shape[0])):
        if start < end:  # a decoding step has few tokens, and most experts none
            torch.mm(x[start:end], matrices[group].T, out=y[start:end])
    return y


def grouped_linear_backward(
    grad_y: Tensor | None, x: Tensor, weight: Tensor, bounds: Tensor
) -> tuple[Tensor, Tensor]:
    """Return grad_x = grad_y W and, for each group, grad_W = grad_yᵀ x."""
    grad = x.new_zeros(x.shape[0], weight.shape[1]) if grad_y is None else grad_y.to(x.dtype)
    grad_x = grouped_linear(grad, weight.mT, bounds)
    grad_weight = x.new_empty(weight.shape)
    for matrix, (start, end) in zip(grad_weight, segments(bounds, x.shape[0]), strict=True):
        torch.mm(grad[start:end].T, x[start:end], out=matrix)
    return grad_x, grad_weight.to(weight.dtype)
