"""Root-mean-square normalisation, with the residual before it and the gate after or before it.

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
from helix_ssm.ops.add_rms_norm import add_rms_norm

if TYPE_CHECKING:
    from collections.abc import Iterator


@overload
def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    z: Tensor | None = None,
    residual: None = None,
    *,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor: ...
@overload
def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    z: Tensor | None = None,
    *,
    residual: Tensor,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> tuple[Tensor, Tensor]: ...
def rms_norm(
    x: Tensor,
    weight: Tensor,
    eps: float = 1e-5,
    z: Tensor | None = None,
    residual: Tensor | None = None,
    *,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Compute s = x + residual and y = s / sqrt(mean(s²) + eps) * weight * silu(z) over the last dimension.

    It computes in float32, or float64 where any argument is float64. With the norm before the gate, the
    gate can close a channel whatever the others do; with the gate first, as in Mamba-2, s silu(z) is what
    is normalised.

    Args:
        x: Inputs (..., D).
        weight: Scales (D,).
        eps: Added to the mean square, which keeps a row of zeros finite.
        z: Gate, shaped as `x`.
        residual: Added to `x` before all else, shaped as `x`.
        group_size: Neighbouring channels that have a mean square of their own; None means all D.
        norm_before_gate: Whether the gate multiplies what is normalised already.

    Returns:
        y (..., D) in the dtype of `x`; with `residual` also the sum s.

    Raises:
        ArgumentError: A shape does not fit, `eps` is negative, or `group_size` does not divide D.
    """
    if group_size is None:
        group_size = x.shape[-1] if x.dim() else 1
    if residual is None:
        return op(x, weight, eps, z, group_size, norm_before_gate)  # type: ignore[no-any-return]  # an op's results are as its schema says
    if z is None and group_size == x.shape[-1]:
        return add_rms_norm(x, residual, weight, eps)
    check_shape("residual", residual, x.shape)
    total = x + residual
    return op(total, weight, eps, z, group_size, norm_before_gate), total


def reference(
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: FBT001 - the op's schema
) -> Tensor:
    """Normalise; returns y, shaped as `x`."""
    dtype = compute_dtype(x, weight, z)
    gate = None if z is None else F.silu(z.to(dtype))
    s = x.to(dtype) if gate is None or norm_before_gate else x.to(dtype) * gate
    groups = torch.unflatten(s, -1, (-1, group_size))
    y = (groups * torch.rsqrt(groups.square().mean(-1, keepdim=True) + eps)).flatten(-2) * weight.to(dtype)
    y = y * gate if gate is not None and norm_before_gate else y
    return y.to(x.dtype).contiguous()


def _check(
    x: Tensor,
    weight: Tensor,
    eps: float,
    z: Tensor | None,
    group_size: int,
    norm_before_gate: bool,  # noqa: ARG001, FBT001 - the op's schema
) -> None:
    if not eps >= 0:
        raise ArgumentError(f"eps is {eps!r}, allowed is >= 0")
    if x.dim() == 0:
        raise ArgumentError("x has no dimension to normalise over, allowed is a shape (..., D)")
    check_shape("weight", weight, x.shape[-1:])
    check_shape("z", z, x.shape)
    if group_size < 1 or x.shape[-1] % group_size:
        raise ArgumentError(f"group_size is {group_size}, allowed is a divisor of {x.shape[-1]}")


def _fake(x: Tensor, *_rest: object) -> Tensor:
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
    yield Sample("groups", _arguments((2, 3, 6), group_size=2))
    yield Sample("gate-first", _arguments((2, 3, 6), gate=True, norm_before_gate=False))
    yield Sample("gate-first-in-groups", _arguments((4, 6), gate=True, group_size=3, norm_before_gate=False))


def _arguments(
    shape: tuple[int, ...],
    *,
    gate: bool = False,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> tuple[object, ...]:
    generator = torch.Generator().manual_seed(len(shape))

    def draw(*sizes: int) -> Tensor:
        return torch.randn(sizes, generator=generator, dtype=torch.float64)

    z = draw(*shape) if gate else None
    return draw(*shape), draw(shape[-1]), 1e-5, z, group_size or shape[-1], norm_before_gate


contract = OpContract(
    name="rms_norm",
    schema=(
        "(Tensor x, Tensor weight, float eps, Tensor? z, int group_size, bool norm_before_gate) -> (Tensor y)"
    ),
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    check=_check,
)
op = define(contract)
