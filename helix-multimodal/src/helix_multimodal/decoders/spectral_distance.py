"""How far apart two sounds are in their spectra."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

SIZES = (1024, 256, 64)
"""Samples of the windows that a distance is averaged over."""
_FLOOR = 1e-3


def spectral_distance(x: Tensor, y: Tensor, lengths: Tensor, sizes: Sequence[int] = SIZES) -> Tensor:
    """Return the mean absolute difference of log magnitudes, averaged over windows of several sizes.

    The logarithmic part of the multi-resolution STFT loss (Yamamoto et al. 2020, Parallel WaveGAN,
    arXiv:1910.11480, equation 6), with Hann windows that overlap by 3/4, and magnitudes |X| / sqrt(n / 4) as
    log sqrt(|X|² + 1e-6), so that what is inaudible counts for little.

    Args:
        x: Sounds (B, T), zeros beyond their lengths.
        y: Sounds (B, T), zeros beyond their lengths.
        lengths: Samples of each row (B,).
        sizes: Samples of the windows.

    Returns:
        (B,); 0 for a row without samples.
    """
    return torch.stack([_distance(x, y, lengths, size) for size in sizes]).mean(0)


def _distance(x: Tensor, y: Tensor, lengths: Tensor, size: int) -> Tensor:
    hop = max(1, size // 4)
    difference = (_log_magnitudes(x, size, hop) - _log_magnitudes(y, size, hop)).abs().mean(-1)
    counts = -(-lengths // hop)
    own = torch.arange(difference.shape[1], device=x.device) < counts[:, None]
    return difference.masked_fill(~own, 0).sum(1) / counts.clamp(min=1)


def _log_magnitudes(x: Tensor, size: int, hop: int) -> Tensor:
    """Return (B, ceil(T / hop), size // 2 + 1); frame t is of the samples around t · hop."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # half precision has no FFT on every device
    window = torch.hann_window(size, dtype=x.dtype, device=x.device)
    n_frames = -(-x.shape[1] // hop)
    frames = F.pad(x, (size // 2, size + hop)).unfold(1, size, hop)[:, :n_frames] * window
    spectrum: Tensor = torch.fft.rfft(frames)
    power = (spectrum.real.square() + spectrum.imag.square()) * (4 / size)
    return 0.5 * (power + _FLOOR**2).log()
