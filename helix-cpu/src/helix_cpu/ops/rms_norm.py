"""Root-mean-square normalisation with a gate after or before it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, code, common_dtype, dense, serves
from helix_cpu.library import Kernel
from helix_cpu.repeats import Repeats

_FORWARD = Kernel("rms_norm", "11q1d")
_BACKWARD = Kernel("rms_norm_backward", "15q1d")
_REPEATS = Repeats(_FORWARD)
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
    args = (x, weight, eps, z, group_size, norm_before_gate)
    repeated = _REPEATS.run(args)
    if repeated is not None:
        return repeated[0]
    if not serves(x, weight, z):
        return NotImplemented
    dtype = common_dtype(x, z)
    rows, row_stride = _rows(x, dtype)
    gate, gate_stride = (None, 0) if z is None else _rows(z, dtype)
    y = torch.empty(x.shape, dtype=dtype)
    tensors = (rows, gate, dense(weight), y)
    sizes = (_n_rows(x), x.shape[-1], group_size, row_stride, gate_stride)
    numbers = (*sizes, code(dtype), norm_before_gate, eps)
    _FORWARD(*map(address, tensors), *numbers)
    if dtype is not x.dtype:
        return y.to(x.dtype)
    _REPEATS.remember(args, (*tensors, *numbers), (y,))
    return y


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
    rows, row_stride = _rows(x, dtype)
    gate, gate_stride = (None, 0) if z is None else _rows(z, dtype)
    weights = dense(weight)
    grad = dense(grad_y, dtype)
    rows_per_block = max(-(-n_rows // _BLOCKS), 1)
    grad_x = torch.empty(x.shape, dtype=dtype)
    grad_z = None if z is None else torch.empty(x.shape, dtype=dtype)
    sums = torch.empty(-(-n_rows // rows_per_block), d_model, dtype=torch.float32)
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
        row_stride,
        gate_stride,
        code(dtype),
        norm_before_gate,
        rows_per_block,
        eps,
    )
    return as_given((grad_x, sums.sum(0), grad_z), (x, weight, z))


def _rows(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, int]:
    """Return the tensor in that dtype and how far apart its rows are; a copy where they are not evenly so."""
    if x.dtype is not dtype:
        x = x.to(dtype)
    if x.is_contiguous():
        return x, x.shape[-1]
    outer = [(size, stride) for size, stride in zip(x.shape[:-1], x.stride()[:-1], strict=True) if size > 1]
    even = all(stride == inner[0] * inner[1] for (_, stride), inner in pairwise(outer))
    if even and outer and x.stride(-1) == 1:
        return x, outer[-1][1]
    return x.contiguous(), x.shape[-1]


def _n_rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1] if x.shape[-1] else 0
