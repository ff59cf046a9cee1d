"""Grouped linear map: rows that lie group by group, each group times a matrix of its own.

What a mixture of experts does once its tokens are sorted by expert (Gale et al. 2022, MegaBlocks,
https://arxiv.org/abs/2211.15841, section 3: block-sparse products in place of dropped tokens).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_kernel.ops import OpContract, Sample, define
from helix_ssm.ops._check import check_shape, compute_dtype, segments

if TYPE_CHECKING:
    from collections.abc import Iterator


def grouped_linear(x: Tensor, weight: Tensor, bounds: Tensor) -> Tensor:
    """Compute y_t = W_g x_t for each row t of each group g.

    It computes in the dtype of `x`, with sums in float32 or wider.

    Args:
        x: Rows (T, K), group after group.
        weight: Matrices W (G, N, K).
        bounds: Where groups begin and end (G + 1,), int32 or int64, rising from 0 to T; a group may be
            empty.

    Returns:
        y (T, N) in the dtype of `x`.

    Raises:
        ArgumentError: A shape or dtype does not fit.
    """
    check_shape("weight", weight, (None, None, None))
    check_shape("x", x, (None, weight.shape[2]))
    check_shape("bounds", bounds, (weight.shape[0] + 1,))
    if bounds.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(f"bounds has dtype {bounds.dtype}, allowed is int32 or int64")
    return op(x, weight, bounds)  # type: ignore[no-any-return]  # an op's results are as its schema says


def reference(x: Tensor, weight: Tensor, bounds: Tensor) -> Tensor:
    """Multiply each group by its matrix; returns y (T, N)."""
    dtype = compute_dtype(x, weight)
    groups = zip(weight.to(dtype), segments(bounds, x.shape[0]), strict=True)
    return torch.cat([x[start:end].to(dtype) @ matrix.T for matrix, (start, end) in groups]).to(x.dtype)


def _fake(x: Tensor, weight: Tensor, bounds: Tensor) -> Tensor:  # noqa: ARG001 - the op's schema
    return x.new_empty(x.shape[0], weight.shape[1])


def _flops(x: torch.Size, weight: torch.Size, bounds: torch.Size) -> int:  # noqa: ARG001 - the op's schema
    """Count a multiply-add for each row and element of its matrix."""
    return 2 * x.numel() * weight[1]


def _samples() -> Iterator[Sample]:
    yield Sample("plain", _arguments(0, 3, 7, 8))
    yield Sample("empty-groups", _arguments(0, 0, 4, 4, 6, 6))
    yield Sample("one-group", _arguments(0, 5))
    yield Sample("one-row", _arguments(0, 0, 1, 1))
    yield Sample("no-rows", _arguments(0, 0, 0))
    yield Sample("one-channel", _arguments(0, 2, 5, d_in=1, d_out=1))
    yield Sample("many-threads", _arguments(0, 90, 130, 300, d_in=64, d_out=96))


def _arguments(*bounds: int, d_in: int = 4, d_out: int = 6) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(len(bounds))

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return draw(bounds[-1], d_in), draw(len(bounds) - 1, d_out, d_in), torch.tensor(bounds)


contract = OpContract(
    name="grouped_linear",
    schema="(Tensor x, Tensor weight, Tensor bounds) -> (Tensor y)",
    reference=reference,
    fake=_fake,
    samples=_samples,
    flops=_flops,
    constants=("bounds",),
)
op = define(contract)
