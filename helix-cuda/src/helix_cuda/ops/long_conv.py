"""Causal convolution with a kernel as long as the sequence: products of matrices, or Fourier transforms."""

from __future__ import annotations

import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import long_conv as kernels
from helix_cuda.ops import _conv_by_products as by_products
from helix_cuda.ops import _conv_by_transforms as by_transforms
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from torch import Tensor

VARIABLE = "HELIX_CUDA_CONV_TAPS"
"""Environment variable: up to how many taps convolutions are products, in place of `MOST_TAPS`."""
MOST_TAPS = MappingProxyType({torch.bfloat16: 4096, torch.float16: 4096, torch.float32: 32})
"""Up to how many taps a convolution is done by products, for each dtype of the factors.

These are reckoned and not measured yet. A product takes an operation or two a tap and token, of which a
Hopper GPU does some 4e14 a second on tensor cores and, in float32, 1e13 beside them; transforms move some 70
bytes a token and channel. Both would take equally long at two or three times these numbers.
"""
_SKIP_PROGRAMS = 256
"""Sums of the skip's gradient that are made apart; a constant, so that devices do not differ."""
_STEP_CHANNELS = 256
_SKIP_TILE = {"TIMES": 16, "CHANNELS": 256}


def long_conv(x: Tensor, kernel: Tensor, D: Tensor | None) -> Any:
    """Compute the op as its contract says; not of float64."""
    if not serves(x, kernel, D):
        return NotImplemented
    if not x.numel():
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    taps, skip = _used(kernel, x), None if D is None else D.contiguous()
    return _of_one_token(x, taps, skip) if x.shape[1] == 1 else _way(x, taps).convolve(x, taps, skip)


def long_conv_backward(grad_y: Tensor | None, x: Tensor, kernel: Tensor, D: Tensor | None) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(grad_y, x, kernel, D):
        return NotImplemented
    grad_kernel = torch.zeros(kernel.shape, dtype=torch.float32, device=x.device)
    if grad_y is None or not x.numel():
        nothing = (torch.zeros_like(x), grad_kernel, None if D is None else torch.zeros_like(D))
        return as_given(nothing, (x, kernel, D))
    taps = _used(kernel, x)
    grad_x, grad_taps = _way(x, taps).gradients(grad_y, x, taps, None if D is None else D.contiguous())
    n_taps = min(kernel.shape[1], x.shape[1])
    grad_kernel[:, :n_taps] = grad_taps[:, :n_taps]
    return as_given((grad_x, grad_kernel, None if D is None else _of_skip(grad_y, x)), (x, kernel, D))


def _used(kernel: Tensor, x: Tensor) -> Tensor:
    """Return the lags of the kernel that lie within the sequence, one at least."""
    if not kernel.shape[1]:
        return kernel.new_zeros(kernel.shape[0], 1)
    return kernel[:, : x.shape[1]]


def _way(x: Tensor, taps: Tensor) -> Any:
    return by_products if taps.shape[1] <= _most_taps(x, taps) else by_transforms


def _most_taps(x: Tensor, taps: Tensor) -> int:
    given = os.environ.get(VARIABLE)
    if given is None:
        return MOST_TAPS[by_products.dtype_of_products(x, taps)[0]]
    if not given.isdecimal():
        raise ArgumentError(f"the environment variable {VARIABLE} is {given!r}, allowed is a number of taps")
    return int(given)


def _of_one_token(x: Tensor, taps: Tensor, D: Tensor | None) -> Tensor:
    """Return y of sequences of one token, in one launch."""
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    batch_size, _, n_channels = x.shape
    inputs, x_stride = rows(x)
    kernels.of_one_token[(batch_size, triton.cdiv(n_channels, _STEP_CHANNELS))](
        inputs,
        taps,
        taps if D is None else D,
        y,
        n_channels,
        x_stride,
        taps.stride(0),
        SKIPS=D is not None,
        CHANNELS=_STEP_CHANNELS,
        num_warps=2,
    )
    return y


def _of_skip(grad_y: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of the skip weights (D,) in float32."""
    (grad, grad_stride), (inputs, x_stride) = rows(grad_y), rows(x)
    n_tokens, n_channels = x.shape[0] * x.shape[1], x.shape[2]
    tokens_per_program = triton.cdiv(n_tokens, _SKIP_PROGRAMS)
    n_programs = triton.cdiv(n_tokens, tokens_per_program)
    sums = torch.empty(n_programs, n_channels, dtype=torch.float32, device=x.device)
    kernels.of_skip[(n_programs, triton.cdiv(n_channels, _SKIP_TILE["CHANNELS"]))](
        grad,
        inputs,
        sums,
        n_tokens,
        n_channels,
        grad_stride,
        x_stride,
        tokens_per_program,
        **_SKIP_TILE,
    )
    return sums.sum(0)
