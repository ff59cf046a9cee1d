"""The long convolution by FFT, with its gradient written by hand."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_ssm.ops._check import compute_dtype


def long_conv(x: Tensor, kernel: Tensor, D: Tensor | None) -> Tensor:
    """Multiply spectra of signals padded so that the end does not wrap around to the start."""
    dtype = compute_dtype(x, kernel, D)
    if x.numel() == 0:
        return torch.zeros_like(x, memory_format=torch.contiguous_format)
    n = _transform_len(x, kernel)
    spectrum = _spectrum(x.to(dtype), n).mul_(torch.fft.rfft(_used(kernel, x).to(dtype), n=n))
    y = _signal(spectrum, n, x.shape[1])
    if D is not None:
        y.addcmul_(x.to(dtype), D.to(dtype))
    return y.to(x.dtype)


def long_conv_backward(
    grad_y: Tensor | None, x: Tensor, kernel: Tensor, D: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Correlate: a gradient's spectrum times the conjugate of the other factor's."""
    dtype = compute_dtype(x, kernel, D)
    grad_kernel = torch.zeros_like(kernel, dtype=dtype, memory_format=torch.contiguous_format)
    if grad_y is None or x.numel() == 0:
        grad_x = torch.zeros_like(x, memory_format=torch.contiguous_format)
        return grad_x, grad_kernel.to(kernel.dtype), x.new_empty(0) if D is None else torch.zeros_like(D)
    grad, taps, n = grad_y.to(dtype), _used(kernel, x), _transform_len(x, kernel)
    spectrum = _spectrum(grad, n)
    over_batch = (_spectrum(x.to(dtype), n).conj_physical_() * spectrum).sum(0)
    grad_kernel[:, : taps.shape[1]] = torch.fft.irfft(over_batch, n=n)[:, : taps.shape[1]]
    grad_x = _signal(spectrum.mul_(torch.fft.rfft(taps.to(dtype), n=n).conj_physical()), n, x.shape[1])
    if D is not None:
        grad_x.addcmul_(grad, D.to(dtype))
    return (
        grad_x.to(x.dtype),
        grad_kernel.to(kernel.dtype),
        x.new_empty(0) if D is None else (grad * x.to(dtype)).sum((0, 1)).to(D.dtype),
    )


def _used(kernel: Tensor, x: Tensor) -> Tensor:
    """Return the lags of the kernel that lie within the sequence."""
    return kernel[:, : x.shape[1]]


def _transform_len(x: Tensor, kernel: Tensor) -> int:
    """Return the power of two that holds the whole convolution."""
    return 1 << int(x.shape[1] + _used(kernel, x).shape[1] - 1).bit_length()


def _spectrum(signal: Tensor, n: int) -> Tensor:
    """Transform (B, L, D) to (B, D, n/2+1); time last, so that a transform reads along memory."""
    spectrum: Tensor = torch.fft.rfft(signal.transpose(1, 2).contiguous(), n=n)
    return spectrum


def _signal(spectrum: Tensor, n: int, seq_len: int) -> Tensor:
    """Transform (B, D, n/2+1) back to (B, L, D)."""
    signal: Tensor = torch.fft.irfft(spectrum, n=n)
    return signal[..., :seq_len].transpose(1, 2).contiguous()
