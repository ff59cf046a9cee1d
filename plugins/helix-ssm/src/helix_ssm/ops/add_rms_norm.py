"""A residual stream's sum and its root-mean-square norm, as a block hands them to its next layer.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", https://arxiv.org/abs/1910.07467,
equation 4, of x + residual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape, compute_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Compute s = x + residual and y = s / sqrt(mean(s²) + eps) * weight over the last dimension.

    The sum is rounded to its dtype first; the norm is computed of what it is then, in float32, or float64
    where any argument is float64.

    Args:
        x: Output of a layer (..., D).
        residual: The stream that it is added to, shaped as `x`.
        weight: Scales (D,).
        eps: Added to the mean square, which keeps a row of zeros finite.

    Returns:
        y and s (..., D), both in the dtype that PyTorch gives to x + residual.

    Raises:
        ArgumentError: A shape does not fit, or `eps` is negative.
    """
    return op(x, residual, weight, eps)  # type: ignore[no-any-return]  # an op's results are as its schema says


def reference(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Add and normalise; returns y and the sum, shaped as `x`."""
    total = (x + residual).contiguous()
    dtype = compute_dtype(total, weight)
    s = total.to(dtype)
    y = s * torch.rsqrt(s.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)
    return y.to(total.dtype), total


def _check(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> None:
    if not eps >= 0:
        raise ArgumentError(f"eps is {eps!r}, allowed is >= 0")
    if x.dim() == 0:
        raise ArgumentError("x has no dimension to normalise over, allowed is a shape (..., D)")
    check_shape("residual", residual, x.shape)
    check_shape("weight", weight, x.shape[-1:])


def _fake(x: Tensor, residual: Tensor, *_rest: object) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, residual.dtype)
    return x.new_empty(x.shape, dtype=dtype), x.new_empty(x.shape, dtype=dtype)


def _flops(x: torch.Size, *_rest: object) -> int:
    """Count 5 operations an element: add, square, add to the mean, scale, weigh."""
    return 5 * x.numel()


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments(2, 5, 6))
    yield Sample("one-token", _arguments(2, 1, 8))
    yield Sample("matrix", _arguments(3, 7))
    yield Sample("vector", _arguments(5))
    yield Sample("one-channel", _arguments(2, 3, 1))
    yield Sample("no-row", _arguments(2, 0, 4))
    yield Sample("many-threads", _arguments(4, 40, 256))


def _arguments(*shape: int) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(len(shape))

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    return draw(*shape), draw(*shape), draw(shape[-1]), 1e-5


contract = OpContract(
    name="add_rms_norm",
    schema="(Tensor x, Tensor residual, Tensor weight, float eps) -> (Tensor y, Tensor total)",
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    check=_check,
)
op = define(contract)
