"""A residual's sum and its root-mean-square norm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import add_rms_norm as kernels
from helix_cuda.ops import rms_norm as norm

if TYPE_CHECKING:
    from torch import Tensor


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Any:
    """Compute the op as its contract says; not of float64, nor of over 65,536 channels."""
    width = x.shape[-1]
    if not serves(x, residual, weight) or width > norm.WIDEST:
        return NotImplemented
    dtype = torch.promote_types(x.dtype, residual.dtype)
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    total = torch.empty_like(y)
    if not x.numel():
        return y, total
    (x_rows, x_stride), (residual_rows, residual_stride) = rows(x), rows(residual)
    n_rows = x.numel() // width
    columns, n_tile = norm.tile(n_rows, width)
    kernels.forward[(triton.cdiv(n_rows, n_tile),)](
        x_rows,
        residual_rows,
        weight.contiguous(),
        y,
        total,
        n_rows,
        width,
        x_stride,
        residual_stride,
        eps,
        COLUMNS=columns,
        ROWS=n_tile,
    )
    return y, total


def add_rms_norm_backward(
    grad_y: Tensor | None, grad_total: Tensor | None, x: Tensor, residual: Tensor, weight: Tensor, eps: float
) -> Any:
    """Compute the op's gradient as its contract says; declines what the op does."""
    width = x.shape[-1]
    if not serves(x, residual, weight) or width > norm.WIDEST:
        return NotImplemented
    grad_x, grad_residual = (
        torch.empty(each.shape, dtype=each.dtype, device=x.device) for each in (x, residual)
    )
    if not x.numel():
        return grad_x, grad_residual, torch.zeros_like(weight)
    if grad_y is None:
        dtype = torch.promote_types(x.dtype, residual.dtype)
        grad_y = torch.zeros(x.shape, dtype=dtype, device=x.device)
    (x_rows, x_stride), (residual_rows, residual_stride) = rows(x), rows(residual)
    n_rows = x.numel() // width
    columns, n_tile = norm.tile(n_rows, width)
    rows_per_program = norm.share(n_rows, n_tile)
    n_programs = triton.cdiv(n_rows, rows_per_program)
    sums = torch.empty(n_programs, width, dtype=torch.float32, device=x.device)
    kernels.backward[(n_programs,)](
        x_rows,
        residual_rows,
        weight.contiguous(),
        grad_y.contiguous(),
        grad_y if grad_total is None else grad_total.contiguous(),
        grad_x,
        grad_residual,
        sums,
        n_rows,
        width,
        rows_per_program,
        x_stride,
        residual_stride,
        eps,
        has_total=grad_total is not None,
        COLUMNS=columns,
        ROWS=n_tile,
    )
    return as_given((grad_x, grad_residual, sums.sum(0)), (x, residual, weight))
