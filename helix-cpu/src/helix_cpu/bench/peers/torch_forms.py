"""PyTorch by itself: a copy of the tensor, which no op can beat by much, and convolution by its FFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_cpu.bench.contest import Entry, seconds

if TYPE_CHECKING:
    from torch import Tensor

    from helix_cpu.bench.inputs import LongConv

_BLOCKS = (1, 4, 16, 64)
"""Channels transformed at once in the blocked form; the fastest of them counts."""


def copy(x: Tensor) -> Entry:
    """A copy into memory of its own."""
    return Entry(x.clone)


def long_conv(inputs: LongConv) -> Entry:
    """The whole batch transformed at once, time innermost: the form that S4 and Hyena have."""

    def run() -> Tensor:
        return _convolve(inputs.x.transpose(1, 2), inputs.kernel).transpose(1, 2)

    return Entry(run, lambda y: y)


def long_conv_in_blocks(inputs: LongConv) -> Entry:
    """A few channels at a time, so that what is transformed stays in the cache; time innermost already."""
    x = inputs.x.transpose(1, 2).contiguous()
    trial = x[:, : max(_BLOCKS)]
    block = min(_BLOCKS, key=lambda size: seconds(lambda: _blocked(trial, inputs.kernel, size), 1))
    return Entry(lambda: _blocked(x, inputs.kernel, block), lambda y: y.transpose(1, 2))


def _blocked(x: Tensor, kernel: Tensor, block: int) -> Tensor:
    y = torch.empty_like(x)
    for start in range(0, x.shape[1], block):
        channels = slice(start, start + block)
        y[:, channels] = _convolve(x[:, channels], kernel[channels])
    return y


def _convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """Convolve x (B, D, L) with a kernel (D, L), causally."""
    n = 2 * x.shape[2]
    spectrum = torch.fft.rfft(x, n=n) * torch.fft.rfft(kernel[: x.shape[1]], n=n)
    y: Tensor = torch.fft.irfft(spectrum, n=n)
    return y[..., : x.shape[2]]
