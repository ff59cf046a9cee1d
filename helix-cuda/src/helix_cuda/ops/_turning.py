"""Sequences (B, L, D) turned so that a channel's tokens lie side by side, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_cuda.arguments import rows
from helix_cuda.kernels import long_conv as kernels

_TILE = {"TIMES": 64, "CHANNELS": 64}


def to_channels(x: Tensor, length: int, dtype: torch.dtype, *, backwards: bool = False) -> Tensor:
    """Turn (B, L, D) into (B, D, length), with zeros behind it.

    Args:
        x: The sequences, in any memory layout.
        length: L or more.
        dtype: That of the result; of complex64 it is (B, D/2, length), with a channel in the real part and
            the next one in the imaginary part, zero where there is none.
        backwards: Whether the last token comes first.
    """
    batch_size, seq_len, n_channels = x.shape
    paired = dtype.is_complex
    n_rows = (n_channels + 1) // 2 if paired else n_channels
    turned = torch.empty(batch_size, n_rows, length, dtype=dtype, device=x.device)
    kernels.to_channels[(batch_size * _n_tiles(length, 2 * n_rows if paired else n_rows),)](
        x,
        torch.view_as_real(turned) if paired else turned,
        seq_len,
        n_channels,
        length,
        *x.stride(),
        REVERSED=backwards,
        PAIRED=paired,
        **_TILE,
    )
    return turned


def from_channels(
    turned: Tensor, like: Tensor, skip: Tensor | None = None, *, backwards: bool = False
) -> Tensor:
    """Turn what is laid out as by `to_channels` back; returns (B, L, D), in the dtype of `like`.

    Args:
        turned: The sequences, channel by channel.
        like: A tensor (B, L, D).
        skip: Weights (D,), by which `like` is multiplied and added.
        backwards: As for `to_channels`.
    """
    batch_size, seq_len, n_channels = like.shape
    found = torch.empty_like(like, memory_format=torch.contiguous_format)
    x, x_stride = (like, 0) if skip is None else rows(like)
    kernels.from_channels[(batch_size * _n_tiles(seq_len, n_channels),)](
        torch.view_as_real(turned) if turned.is_complex() else turned,
        x,
        x if skip is None else skip,
        found,
        seq_len,
        n_channels,
        turned.shape[2],
        x_stride,
        SKIPS=skip is not None,
        REVERSED=backwards,
        PAIRED=turned.is_complex(),
        **_TILE,
    )
    return found


def _n_tiles(length: int, n_channels: int) -> int:
    return -(-length // _TILE["TIMES"]) * -(-n_channels // _TILE["CHANNELS"])
