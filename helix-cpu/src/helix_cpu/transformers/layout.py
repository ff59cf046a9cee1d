"""Tensors in the order of the kernels: channels, not time, along the rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_cpu.autograd import Differentiable
from helix_cpu.library import Kernel

if TYPE_CHECKING:
    from torch import Tensor

_KERNEL = Kernel("transposed_copy", "7q")
_SMALLEST = 4096
"""Elements from which on a copy of ours is worth its call."""


def steps(tensor: Tensor) -> Tensor:
    """Return (B, D, L) as (B, L, D); a view where channels lie side by side or there is little to copy.

    PyTorch copies a batch of transposed matrices element by element, which costs more than a scan of them.
    """
    if tensor.stride(1) == 1 or tensor.dtype is not torch.float32 or tensor.numel() < _SMALLEST:
        return tensor.transpose(1, 2)
    return _COPY(tensor)  # type: ignore[no-any-return]  # it declines nothing


def _copy(tensor: Tensor) -> Tensor:
    tensor = tensor if tensor.stride(2) == 1 else tensor.contiguous()
    batch_size, n_rows, n_columns = tensor.shape
    out = torch.empty(batch_size, n_columns, n_rows)
    _KERNEL(
        tensor.data_ptr(), out.data_ptr(), batch_size, n_rows, n_columns, tensor.stride(0), tensor.stride(1)
    )
    return out


def _copy_backward(grad: Tensor, tensor: Tensor) -> tuple[Tensor]:  # noqa: ARG001 - the form of a gradient
    return (grad.transpose(1, 2),)


_COPY = Differentiable("transposed_copy", _copy, _copy_backward, leaves=(0,))
