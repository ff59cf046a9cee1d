"""Sums of poles at many points, sum_n w_n / (z - p_n), in bounded memory forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENTRIES = 1 << 21
"""Entries of the Cauchy matrices 1 / (z_j - p_n) that exist at a time."""


def cauchy_sums(weight: Tensor, poles: Tensor, points: Tensor) -> Tensor:
    """Return sum_n weight_rn / (points_j - poles_n) for every r and j.

    The Cauchy matrices are made slice by slice, and again in the backward pass instead of being kept:
    memory beyond arguments and results does not grow with the number of points.

    Args:
        weight: Residues (D, R, N), complex.
        poles: Poles (D, N), complex.
        points: Where to evaluate (D, M), complex, none on a pole.

    Returns:
        The sums (D, R, M).
    """
    if torch.compiler.is_compiling():  # a compiler decides itself what to keep and what to make again
        return _sums(weight, poles, points)
    return cast("Tensor", _CauchySums.apply(weight, poles, points))  # type: ignore[no-untyped-call]  # torch's


def _sums(weight: Tensor, poles: Tensor, points: Tensor) -> Tensor:
    return torch.cat([weight @ _matrix(poles, points[:, part]) for part in _slices(poles, points)], dim=-1)


class _CauchySums(torch.autograd.Function):
    """The sums with their derivative: of 1 / (z - p) it is 1 / (z - p)^2 by p, and its negative by z."""

    @staticmethod
    def forward(weight: Tensor, poles: Tensor, points: Tensor) -> Tensor:
        return _sums(weight, poles, points)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:  # noqa: ARG004 - torch's signature
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight, poles, points = ctx.saved_tensors
        grad_weight, grad_poles, grad_points = torch.zeros_like(weight), torch.zeros_like(poles), []
        for part in _slices(poles, points):
            matrix, grad_part = _matrix(poles, points[:, part]), grad[..., part]
            grad_weight = grad_weight + grad_part @ matrix.mH
            through = (weight.mH @ grad_part) * matrix.square().conj()
            grad_poles = grad_poles + through.sum(-1)
            grad_points.append(-through.sum(-2))
        return grad_weight, grad_poles, torch.cat(grad_points, dim=-1)


def _matrix(poles: Tensor, points: Tensor) -> Tensor:
    """Return 1 / (points_j - poles_n), (D, N, M)."""
    return (points.unsqueeze(-2) - poles.unsqueeze(-1)).reciprocal()


def _slices(poles: Tensor, points: Tensor) -> Iterator[slice]:
    """Cut the points so that one slice's matrices have about _ENTRIES entries."""
    stride = max(1, _ENTRIES // max(1, poles.numel()))
    for start in range(0, max(1, points.shape[-1]), stride):
        yield slice(start, start + stride)
