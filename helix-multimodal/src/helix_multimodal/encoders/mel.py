"""Filters of bands that are equally wide to the ear."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError, did_you_mean

MelScale = Literal["slaney", "htk"]

# Slaney's scale (Auditory Toolbox, 1998, section "MFCC"): linear below 1 kHz, logarithmic above.
_LINEAR_HZ = 200 / 3
_BREAK_HZ = 1000.0
_LOG_STEP = math.log(6.4) / 27


def mel_filters(rate: int, n_fft: int, n_mels: int, scale: MelScale) -> Tensor:
    """Return triangles over the bins of an FFT, (n_mels, n_fft // 2 + 1) float64.

    Band i rises from the centre of band i - 1 to its own and falls to that of i + 1; centres are equally far
    apart in mel, from 0 Hz to rate / 2. With ``slaney`` each has the area 1 in Hz, with ``htk``
    (Young et al., The HTK Book, section 5.4: mel = 2595 log10(1 + f / 700)) the height 1.

    Raises:
        ArgumentError: There is no such scale.
    """
    if scale not in get_args(MelScale):
        guess = did_you_mean(scale, get_args(MelScale))
        raise ArgumentError(f"scale is {scale!r}, allowed is {get_args(MelScale)}{guess}")
    bins = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * rate / n_fft
    top = _to_mel(rate / 2, scale)
    hertz = [_to_hz(top * i / (n_mels + 1), scale) for i in range(n_mels + 2)]
    edges = torch.tensor(hertz, dtype=torch.float64)
    low, centre, high = (edges[i : n_mels + i].unsqueeze(1) for i in range(3))
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    return filters * 2 / (high - low) if scale == "slaney" else filters


def _to_mel(hz: float, scale: MelScale) -> float:
    if scale == "htk":
        return 2595 * math.log10(1 + hz / 700)
    if hz < _BREAK_HZ:
        return hz / _LINEAR_HZ
    return _BREAK_HZ / _LINEAR_HZ + math.log(hz / _BREAK_HZ) / _LOG_STEP


def _to_hz(mel: float, scale: MelScale) -> float:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    breaks = _BREAK_HZ / _LINEAR_HZ
    if mel < breaks:
        return mel * _LINEAR_HZ
    return _BREAK_HZ * math.exp(_LOG_STEP * (mel - breaks))
