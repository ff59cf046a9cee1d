"""Checks and small helpers that every op of helix-ssm shares."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_shape(name: str, tensor: torch.Tensor | None, shape: Sequence[int | None]) -> None:
    """Check a tensor's shape, where it is given.

    Args:
        name: The argument, for the message.
        tensor: The tensor, or None.
        shape: Its sizes; None allows any.

    Raises:
        ArgumentError: The tensor has another shape.
    """
    if tensor is None or tensor.shape == shape:  # a decoding step pays for each check once a token
        return
    if len(tensor.shape) != len(shape) or any(
        want is not None and size != want for size, want in zip(tensor.shape, shape, strict=True)
    ):
        allowed = ", ".join("any" if size is None else str(size) for size in shape)
        raise ArgumentError(f"{name} has shape {tuple(tensor.shape)}, allowed is ({allowed})")


def check_packed(cu_seqlens: torch.Tensor | None, batch_size: int) -> None:
    """Check what can be checked of `cu_seqlens` without reading its values.

    Raises:
        ArgumentError: It is no vector of integers, or the batch size is not 1.
    """
    if cu_seqlens is None:
        return
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2 or cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise ArgumentError(
            f"cu_seqlens has shape {tuple(cu_seqlens.shape)} and dtype {cu_seqlens.dtype},"
            " allowed is a vector of at least two int32 or int64"
        )
    if batch_size != 1:
        raise ArgumentError(f"cu_seqlens packs sequences into one row, but the batch size is {batch_size}")


def n_states(cu_seqlens: torch.Tensor | None, batch_size: int) -> int:
    """Return how many sequences, and so states, a call has."""
    return batch_size if cu_seqlens is None else cu_seqlens.shape[0] - 1


def segments(cu_seqlens: torch.Tensor, seq_len: int) -> list[tuple[int, int]]:
    """Return the (start, end) of each packed sequence; reads the values of `cu_seqlens`.

    Raises:
        ArgumentError: The values do not rise from 0 to `seq_len`.
    """
    bounds = cu_seqlens.tolist()
    pairs = list(pairwise(bounds))
    if bounds[0] != 0 or bounds[-1] != seq_len or any(end < start for start, end in pairs):
        raise ArgumentError(
            f"cu_seqlens is {bounds}, allowed is values that rise from 0 to seq_len={seq_len}"
        )
    return pairs


def compute_dtype(*tensors: torch.Tensor | None) -> torch.dtype:
    """Return the dtype to compute in: float32, or float64 where any tensor is; complex where any is."""
    given = [tensor.dtype for tensor in tensors if tensor is not None]
    wide = torch.float64 in given or torch.complex128 in given
    if any(dtype.is_complex for dtype in given):
        return torch.complex128 if wide else torch.complex64
    return torch.float64 if wide else torch.float32
