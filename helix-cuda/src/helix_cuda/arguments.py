"""Tensors as a kernel takes them: which dtypes it serves, and how far apart tokens lie."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

_SERVED = (torch.float32, torch.bfloat16, torch.float16)


def serves(*tensors: Tensor | None) -> bool:
    """Whether every tensor given is of a dtype that kernels compute in float32."""
    return all(tensor is None or tensor.dtype in _SERVED for tensor in tensors)


def rows(tensor: Tensor) -> tuple[Tensor, int]:
    """Return the tensor and how many elements apart its rows, those of its last dimension, begin.

    A copy where rows have gaps in them or are not evenly apart; the slice of a projection is neither.
    """
    if tensor.is_contiguous():
        return tensor, tensor.shape[-1]
    sizes, strides = tensor.shape[:-1], tensor.stride()[:-1]
    outer = [(size, stride) for size, stride in zip(sizes, strides, strict=True) if size > 1]
    even = all(stride == inner[0] * inner[1] for (_, stride), inner in pairwise(outer))
    if even and outer and tensor.stride(-1) == 1:
        return tensor, outer[-1][1]
    return tensor.contiguous(), tensor.shape[-1]


def as_given(grads: Iterable[Tensor | None], like: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """Return gradients as a backward op does: in each argument's dtype and shape, empty for one that is None.

    Args:
        grads: A gradient of each differentiable argument, in any dtype.
        like: Those arguments; the first is not None.
    """
    first = like[0]
    assert first is not None
    return tuple(
        first.new_empty(0)
        if tensor is None or grad is None
        else grad.view(tensor.shape).to(tensor.dtype).contiguous()
        for grad, tensor in zip(grads, like, strict=True)
    )
