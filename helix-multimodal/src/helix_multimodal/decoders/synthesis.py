"""Sound from vectors by transposed convolutions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


class Synthesis(nn.Module):
    """Each vector becomes `prod(strides)` samples; a sample depends on no later vector.

    A shallow form of SoundStream's decoder (Zeghidour et al. 2021, arXiv:2107.03312, section III.B):
    transposed convolutions of kernel 2 s and stride s, after each a residual convolution, and in between the
    function x + sin²(x).

    Args:
        d_model: Width of the vectors.
        strides: Strides from the waveform inwards, as the analysis has them.
        width: Channels between convolutions.
    """

    def __init__(self, d_model: int, strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.strides = tuple(reversed(strides))
        self.stride = math.prod(self.strides)
        self.in_proj = nn.Linear(d_model, width)
        self.convs = nn.ModuleList(
            nn.ConvTranspose1d(width, width, 2 * stride, stride) for stride in self.strides
        )
        self.residuals = nn.ModuleList(_Residual(width) for _ in self.strides)
        self.norm = nn.RMSNorm(width)
        self.out_proj = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map vectors (B, F, D) to sound (B, F · prod(strides))."""
        x = self.in_proj(x)
        for conv, residual, stride in zip(self.convs, self.residuals, self.strides, strict=True):
            x = conv(x.mT)[..., : x.shape[1] * stride].mT
            x = residual(x)
        sound: Tensor = self.out_proj(_snake(self.norm(x)))
        return sound.squeeze(-1)


class _Residual(nn.Module):
    """x + linear(snake(causal convolution of 7 (snake(x))))."""

    kernel = 7

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, self.kernel)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(F.pad(_snake(x).mT, (self.kernel - 1, 0))).mT
        out: Tensor = x + self.out_proj(_snake(y))
        return out


def _snake(x: Tensor) -> Tensor:
    """Return x + sin²(x), made for what is periodic (Ziyin et al. 2020, arXiv:2006.08195, eq. 3)."""
    return x + x.sin().square()
