"""Causal convolution with a kernel as long as the sequence, as in S4 and Hyena.

Gu et al. 2021, "Efficiently Modeling Long Sequences with Structured State Spaces",
https://arxiv.org/abs/2111.00396, section 2.4; Poli et al. 2023, "Hyena Hierarchy",
https://arxiv.org/abs/2302.10866, section 3.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape, compute_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator


def long_conv(x: Tensor, kernel: Tensor, D: Tensor | None = None) -> Tensor:
    """Compute y_t = sum over s <= t of kernel_{t-s} x_s, plus D x_t, channel by channel.

    It computes in float32, or float64 where any argument is float64.

    Args:
        x: Inputs (B, L, D).
        kernel: Impulse response (D, L'), lag 0 first; lags beyond the sequence go unused.
        D: Skip weights (D,).

    Returns:
        y (B, L, D), in the dtype of `x`.

    Raises:
        ArgumentError: A shape does not fit.
    """
    check_shape("x", x, (None, None, None))
    check_shape("kernel", kernel, (x.shape[2], None))
    check_shape("D", D, (x.shape[2],))
    y: Tensor = op(x, kernel, D)
    return y


def reference(x: Tensor, kernel: Tensor, D: Tensor | None) -> Tensor:
    """Add up the inputs of each lag; returns y (B, L, D)."""
    dtype = compute_dtype(x, kernel, D)
    values, taps = x.to(dtype), kernel.to(dtype)
    seq_len = x.shape[1]
    y = torch.zeros_like(values) if D is None else D.to(dtype) * values
    for lag in range(min(seq_len, kernel.shape[1])):
        y = y + taps[:, lag] * F.pad(values[:, : seq_len - lag], (0, 0, lag, 0))
    return y.to(x.dtype)


def _fake(x: Tensor, kernel: Tensor, D: Tensor | None) -> Tensor:  # noqa: ARG001 - the op's schema
    return x.new_empty(x.shape)


def _flops(x: torch.Size, kernel: torch.Size, *_rest: object) -> int:
    """Count three FFTs of length n = L + L' for each row, at 5/2 n log2 n for real data.

    To them come the complex product of the spectra, 6 for each of n/2 frequencies, and the
    multiply-add of the skip. The kernel's transform is counted once for each channel.
    """
    batch_size, seq_len, d_model = x
    n = seq_len + kernel[1]
    transform = 2.5 * n * math.log2(max(n, 2))
    return round(d_model * (batch_size * (2 * transform + 3 * n + 2 * seq_len) + transform))


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments())
    yield Sample("skip", _arguments(skip=True))
    yield Sample("one-step", _arguments(seq_len=1, skip=True))
    yield Sample("no-step", _arguments(seq_len=0))
    yield Sample("short-kernel", _arguments(kernel_len=3))
    yield Sample("kernel-longer-than-the-sequence", _arguments(kernel_len=15, skip=True))
    yield Sample("many-threads", _arguments(batch_size=4, seq_len=40, d_model=256, kernel_len=40, skip=True))
    yield Sample("one-channel", _arguments(d_model=1, seq_len=16, kernel_len=16))


def _arguments(
    *,
    batch_size: int = 2,
    seq_len: int = 9,
    d_model: int = 3,
    kernel_len: int = 9,
    skip: bool = False,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(seq_len * 100 + d_model)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(batch_size, seq_len, d_model), draw(d_model, kernel_len), draw(d_model) if skip else None


contract = OpContract(
    name="long_conv",
    schema="(Tensor x, Tensor kernel, Tensor? D) -> (Tensor y)",
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
)
op = define(contract)
