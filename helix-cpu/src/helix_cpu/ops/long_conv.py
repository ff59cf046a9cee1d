"""Causal convolution with a kernel as long as the sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, code, common_dtype, dense, rows, serves
from helix_cpu.library import Kernel

_FORWARD = Kernel("long_conv", "12q")
_BACKWARD = Kernel("long_conv_backward", "18q")


def long_conv(x: Tensor, kernel: Tensor, D: Tensor | None) -> Any:
    """Compute the op as its contract says; not of float64."""
    if not serves(x, kernel, D):
        return NotImplemented
    dtype = common_dtype(x)
    inputs = rows(x, dtype)
    y = torch.empty(x.shape, dtype=dtype)
    if y.numel():
        taps = _taps(kernel, x.shape[1])
        skip = None if D is None else dense(D)
        _FORWARD(
            inputs.data_ptr(),
            taps.data_ptr(),
            address(skip),
            y.data_ptr(),
            *x.shape,
            taps.shape[1],
            inputs.stride(0),
            inputs.stride(1),
            taps.stride(0),
            code(dtype),
        )
    return y if dtype is x.dtype else y.to(x.dtype)


def long_conv_backward(grad_y: Tensor | None, x: Tensor, kernel: Tensor, D: Tensor | None) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(grad_y, x, kernel, D):
        return NotImplemented
    grad_kernel = torch.zeros(kernel.shape, dtype=torch.float32)
    grad_D = None if D is None else torch.zeros(D.shape, dtype=torch.float32)
    if grad_y is None or not x.numel():
        return as_given((torch.zeros(x.shape, dtype=torch.float32), grad_kernel, grad_D), (x, kernel, D))
    dtype = common_dtype(x, grad_y)
    inputs, grads, taps = rows(x, dtype), rows(grad_y, dtype), _taps(kernel, x.shape[1])
    skip = None if D is None else dense(D)
    grad_x = torch.empty(x.shape, dtype=dtype)
    grad_taps = grad_kernel if kernel.shape[1] else torch.zeros(taps.shape, dtype=torch.float32)
    _BACKWARD(
        inputs.data_ptr(),
        taps.data_ptr(),
        address(skip),
        grads.data_ptr(),
        grad_x.data_ptr(),
        grad_taps.data_ptr(),
        address(grad_D),
        *x.shape,
        taps.shape[1],
        inputs.stride(0),
        inputs.stride(1),
        taps.stride(0),
        code(dtype),
        grads.stride(0),
        grads.stride(1),
        grad_taps.stride(0),
    )
    return as_given((grad_x, grad_kernel, grad_D), (x, kernel, D))


def _taps(kernel: Tensor, seq_len: int) -> Tensor:
    """Return the lags (D, K) that reach into the sequence, a channel's side by side; one at least."""
    if not kernel.shape[1]:
        return torch.zeros(kernel.shape[0], 1, dtype=torch.float32)
    return rows(kernel if kernel.shape[1] <= seq_len else kernel[:, :seq_len])
