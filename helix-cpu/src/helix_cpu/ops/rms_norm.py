"""Root-mean-square normalisation with a gate after or before it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, code, common_dtype, dense, serves
from helix_cpu.library import Kernel

_FORWARD = Kernel("rms_norm", "11q1d")
_BACKWARD = Kernel("rms_norm_backward", "15q1d")
_BLOCKS = 64
"""Sums of the weight's gradient that are made apart; a constant, so that threads do not matter."""


def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Any:
    """Compute the op as its contract says; not of float64."""
    if not serves(x, weight, z):
        return NotImplemented
    dtype = common_dtype(x, z)
    d_model = x.shape[-1]
    rows, gate, weights = dense(x, dtype), None if z is None else dense(z, dtype), dense(weight)
    y = torch.empty(x.shape, dtype=dtype)
    _FORWARD(
        address(rows),
        address(gate),
        weights.data_ptr(),
        y.data_ptr(),
        _n_rows(x),
        d_model,
        group_size,
        d_model,
        d_model,
        code(dtype),
        norm_before_gate,
        eps,
    )
    return y if dtype is x.dtype else y.to(x.dtype)


def rms_norm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(x, weight, z):
        return NotImplemented
    dtype = common_dtype(x, z)
    n_rows, d_model = _n_rows(x), x.shape[-1]
    rows, gate, weights = dense(x, dtype), None if z is None else dense(z, dtype), dense(weight)
    grad = dense(grad_y, dtype)
    rows_per_block = max(-(-n_rows // _BLOCKS), 1)
    grad_x = torch.empty(x.shape, dtype=dtype)
    grad_z = None if z is None else torch.empty(x.shape, dtype=dtype)
    sums = torch.empty(-(-n_rows // rows_per_block), d_model)
    _BACKWARD(
        rows.data_ptr(),
        address(gate),
        weights.data_ptr(),
        grad.data_ptr(),
        grad_x.data_ptr(),
        address(grad_z),
        sums.data_ptr(),
        n_rows,
        d_model,
        group_size,
        d_model,
        d_model,
        code(dtype),
        norm_before_gate,
        rows_per_block,
        eps,
    )
    return as_given((grad_x, sums.sum(0), grad_z), (x, weight, z))


def _n_rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1] if x.shape[-1] else 0
