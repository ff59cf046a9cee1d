"""Root-mean-square normalisation, with the residual before it and the gate after it.

Zhang and Sennrich 2019, "Root Mean Square Layer Normalization", https://arxiv.org/abs/1910.07467,
equation 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape, compute_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator


@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, z: Tensor | None = None, residual: None = None
) -> Tensor: ...
@overload
def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, z: Tensor | None = None, *, residual: Tensor
) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    x: Tensor, weight: Tensor, eps: float = 1e-5, z: Tensor | None = None, residual: Tensor | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute s = x + residual and y = s / sqrt(mean(s²) + eps) * weight * silu(z) over the last dimension.

    It computes in float32, or float64 where any argument is float64. The gate comes after the
    normalisation, so that it can close a channel whatever the others do.

    Args:
        x: Inputs (..., D).
        weight: Scales (D,).
        eps: Added to the mean square, which keeps a row of zeros finite.
        z: Gate, shaped as `x`.
        residual: Added to `x` before all else, shaped as `x`.

    Returns:
        y (..., D) in the dtype of `x`; with `residual` also the sum s.

    Raises:
        ArgumentError: A shape does not fit, or `eps` is negative.
    """
    if not eps >= 0:
        raise ArgumentError(f"eps is {eps!r}, allowed is >= 0")
    if x.dim() == 0:
        raise ArgumentError("x has no dimension to normalise over, allowed is a shape (..., D)")
    check_shape("weight", weight, x.shape[-1:])
    check_shape("z", z, x.shape)
    check_shape("residual", residual, x.shape)
    if residual is None:
        return op(x, weight, eps, z)  # type: ignore[no-any-return]  # an op's results are as its schema says
    total = x + residual
    return op(total, weight, eps, z), total


def reference(x: Tensor, weight: Tensor, eps: float, z: Tensor | None) -> Tensor:
    """Normalise; returns y, shaped as `x`."""
    dtype = compute_dtype(x, weight, z)
    s = x.to(dtype)
    y = s * torch.rsqrt(s.square().mean(-1, keepdim=True) + eps) * weight.to(dtype)
    y = y if z is None else y * F.silu(z.to(dtype))
    return y.to(x.dtype).contiguous()


def _fake(x: Tensor, weight: Tensor, eps: float, z: Tensor | None) -> Tensor:  # noqa: ARG001 - the op's schema
    return x.new_empty(x.shape)


def _flops(x: torch.Size, *_rest: object) -> int:
    """Count 4 operations an element: square, add to the mean, scale, weigh."""
    return 4 * x.numel()


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments((2, 5, 6)))
    yield Sample("gate", _arguments((2, 1, 8), gate=True))
    yield Sample("matrix", _arguments((3, 7), gate=True))
    yield Sample("one-channel", _arguments((2, 3, 1)))
    yield Sample("no-row", _arguments((2, 0, 4), gate=True))
    yield Sample("many-threads", _arguments((4, 40, 256), gate=True))
    yield Sample("vector", _arguments((5,)))


def _arguments(shape: tuple[int, ...], *, gate: bool = False) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(len(shape))

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    return draw(*shape), draw(shape[-1]), 1e-5, draw(*shape) if gate else None


contract = OpContract(
    name="rms_norm",
    schema="(Tensor x, Tensor weight, float eps, Tensor? z) -> (Tensor y)",
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
)
op = define(contract)
