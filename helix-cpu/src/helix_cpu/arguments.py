"""Tensors as a kernel takes them: one dtype for all that is large, float32 for what is small, and addresses.

The same few tests stand before every kernel, and a decoding step pays for each of them once a token: a tensor
that is right already is passed on after one look.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

FLOAT32, BFLOAT16 = 0, 1
"""How a kernel is told the dtype of its large tensors."""

_CODES = {torch.float32: FLOAT32, torch.bfloat16: BFLOAT16}
_SERVED = {torch.float32, torch.bfloat16, torch.float16}


def serves(*tensors: Tensor | None) -> bool:
    """Whether every tensor given is of a dtype that kernels compute in float32."""
    for tensor in tensors:  # noqa: SIM110 - all() of a generator takes twice as long
        if tensor is not None and tensor.dtype not in _SERVED:
            return False
    return True


def common_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Return the dtype in which the large tensors of a call reach the kernel.

    It is theirs, where all have float32 or all have bfloat16; otherwise float32.
    """
    first = tensors[0]
    assert first is not None
    dtype = first.dtype
    for tensor in tensors:
        if tensor is not None and tensor.dtype is not dtype:
            return torch.float32
    return dtype if dtype in _CODES else torch.float32


def code(dtype: torch.dtype) -> int:
    """Return how a kernel is told of a dtype that `common_dtype` gave."""
    return _CODES[dtype]


def dense(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the tensor in that dtype and contiguous, itself where it is so already."""
    if tensor.dtype is not dtype:
        tensor = tensor.to(dtype)
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def rows(tensor: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the tensor in that dtype, its last dimension without gaps; outer ones may have any strides."""
    if tensor.dtype is not dtype:
        tensor = tensor.to(dtype)
    return tensor if tensor.stride(-1) == 1 or tensor.shape[-1] <= 1 else tensor.contiguous()


def address(tensor: Tensor | None) -> int:
    """Return where the tensor's first element lies, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def bounds(cu_seqlens: Tensor, seq_len: int) -> Tensor:
    """Return the bounds of packed sequences as the kernels read them: int64, contiguous.

    Raises:
        ArgumentError: The values do not rise from 0 to `seq_len`.
    """
    values = cu_seqlens.tolist()
    if values[0] != 0 or values[-1] != seq_len or any(end < start for start, end in pairwise(values)):
        raise ArgumentError(
            f"cu_seqlens is {values}, allowed is values that rise from 0 to seq_len={seq_len}"
        )
    return dense(cu_seqlens, torch.int64)


def as_given(
    grads: Iterator[Tensor | None] | tuple[Tensor | None, ...], like: tuple[Tensor | None, ...]
) -> tuple[Tensor, ...]:
    """Return gradients as a backward op does: in each argument's dtype and shape, empty for one that is None.

    Args:
        grads: A gradient of each differentiable argument, in any dtype.
        like: Those arguments; the first is not None.
    """
    first = like[0]
    assert first is not None
    return tuple(
        first.new_empty(0) if tensor is None or grad is None else dense(grad.view(tensor.shape), tensor.dtype)
        for grad, tensor in zip(grads, like, strict=True)
    )
