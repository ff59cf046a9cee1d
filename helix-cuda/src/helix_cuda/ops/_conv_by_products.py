"""A long convolution as Toeplitz products on tensor cores."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton

from helix_cuda.kernels import long_conv as kernels
from helix_cuda.ops._turning import from_channels, to_channels

if TYPE_CHECKING:
    from torch import Tensor

_BLOCKS = (16, 64)
"""Fewest and most tokens of a block."""


def convolve(x: Tensor, taps: Tensor, D: Tensor | None) -> Tensor:
    """Return y (B, L, D), in the dtype of `x`.

    Args:
        x: Inputs (B, L, D), at least one.
        taps: Response (D, K), from 1 to L taps.
        D: Skip weights (D,).
    """
    return _convolve(x, taps, D, backwards=False)


def gradients(grad: Tensor, x: Tensor, taps: Tensor, D: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the gradients of x, in its dtype, and of the taps, in float32; arguments as `convolve` has.

    Both are convolutions of the gradient with time turned round, of which the first row of tokens is the
    last: with the taps, and with the inputs, where lag k of the taps comes out k before the end.
    """
    seq_len, n_taps = x.shape[1], taps.shape[1]
    dtype, _ = dtype_of_products(x, taps)
    size = _block(seq_len)
    signal, inputs = (
        to_channels(each, _length(seq_len), dtype, backwards=backwards)
        for each, backwards in ((grad, True), (x, False))
    )
    first_block = (seq_len - n_taps) // size
    found = torch.empty(signal.shape[1:], dtype=torch.float32, device=x.device)
    _launch(signal, inputs, None, found, first_block=first_block, n_taps=seq_len, over_rows=True)
    grad_x = _convolve(grad, taps, D, backwards=True, signal=signal)
    return grad_x, found[:, seq_len - n_taps : seq_len].flip(1)


def dtype_of_products(x: Tensor, taps: Tensor) -> tuple[torch.dtype, bool]:
    """Return the dtype of the factors, and whether the taps are a sum of two numbers of it.

    Taps in float32 keep 16 bits of 24 so, which is more than a result in bfloat16 shows.
    """
    if x.dtype == taps.dtype:
        return x.dtype, False
    split = (x.dtype, taps.dtype) == (torch.bfloat16, torch.float32)
    return (torch.bfloat16 if split else torch.float32), split


def _convolve(
    x: Tensor, taps: Tensor, D: Tensor | None, *, backwards: bool, signal: Tensor | None = None
) -> Tensor:
    dtype, split = dtype_of_products(x, taps)
    if signal is None:
        signal = to_channels(x, _length(x.shape[1]), dtype, backwards=backwards)
    out = torch.empty_like(signal, dtype=x.dtype)
    taps = taps if taps.stride(1) == 1 else taps.contiguous()
    _launch(signal, taps, D, out, n_taps=taps.shape[1], split=split)
    return from_channels(out, x, backwards=backwards)


def _launch(
    signal: Tensor,
    taps: Tensor,
    D: Tensor | None,
    out: Tensor,
    *,
    n_taps: int,
    first_block: int = 0,
    split: bool = False,
    over_rows: bool = False,
) -> None:
    """Convolve signals (B, D, row_len), each row, or all with taps (B, D, row_len) of their own added up."""
    n_rows, n_channels, row_len = signal.shape
    size = _block(row_len)
    rows, n_sums = (1, n_rows) if over_rows else (n_rows, 1)
    n_blocks = row_len // size - first_block
    kernels.toeplitz[lambda meta: (n_channels * triton.cdiv(rows * n_blocks, meta["N"]),)](
        signal,
        taps,
        signal if D is None else D,
        out,
        rows,
        n_channels,
        n_sums,
        n_blocks,
        first_block,
        row_len,
        n_taps,
        taps.stride(-2),
        signal.stride(0),
        taps.stride(0) if over_rows else 0,
        SKIPS=D is not None,
        SPLIT=split,
        P=size,
    )


def _block(seq_len: int) -> int:
    """Return the tokens of a block, a power of two."""
    shortest, longest = _BLOCKS
    return min(max(1 << (seq_len - 1).bit_length(), shortest), longest)


def _length(seq_len: int) -> int:
    """Return the tokens of whole blocks."""
    return -(-seq_len // _block(seq_len)) * _block(seq_len)
