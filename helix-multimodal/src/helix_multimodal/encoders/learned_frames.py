"""The encoder `learned-frames`: sound through strided convolutions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.batches import check_batch, mono
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence


class LearnedFrames(nn.Module):
    """Tokens of sound: trunk(convolutions(sound) + position), one token for `prod(strides)` samples.

    As the feature encoder of wav2vec 2.0 (Baevski et al. 2020, arXiv:2006.11477, section 2), but causal: a
    convolution of stride s sees 2 s samples, the last of which are its own, and what its output does not own
    is zeroed before the next, so that padding never enters. Channels are averaged before.

    Args:
        d_model: Width D of the tokens.
        strides: Stride of each convolution.
        d_hidden: Channels between convolutions; None for d_model.
        positions: What tells where a token is: none, sinusoidal or learned. Recurrent layers need none.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, or there are no such positions.
    """

    modality = "audio"

    def __init__(
        self,
        d_model: int,
        *,
        strides: Sequence[int] = (4, 4, 5, 8),
        d_hidden: int | None = None,
        positions: PositionsKind = "none",
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        width = d_model if d_hidden is None else d_hidden
        check_at_least("learned-frames", d_model=d_model, d_hidden=width, strides=min(strides, default=0))
        self.stride = math.prod(strides)
        self.convs = FrameConvs(1, strides, width)
        self.in_proj = nn.Linear(width, d_model)
        self.positions = Positions(d_model, 1, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(T / prod(strides)), D).

        Raises:
            ArgumentError: The batch is not of sound.
        """
        check_batch("learned-frames", batch, self.modality)
        sound = mono(batch, self.in_proj.weight.dtype).unsqueeze(1)
        frames, mask = self.convs(sound, batch.sizes[:, 1] * batch.present)
        x = self.in_proj(frames)
        tokens: Tokens = self.trunk(Tokens(x + self.positions((x.shape[1],), x), mask))
        return tokens


class FrameConvs(nn.Module):
    """Causal convolutions of kernel 2 s and stride s, each with an RMS norm over channels and a GELU.

    Args:
        channels: Of the input.
        strides: Of each convolution.
        width: Channels that each gives.
    """

    def __init__(self, channels: int, strides: Sequence[int], width: int) -> None:
        super().__init__()
        self.strides = tuple(strides)
        ins = [channels] + [width] * (len(self.strides) - 1)
        self.convs = nn.ModuleList(
            nn.Conv1d(before, width, 2 * stride, stride)
            for before, stride in zip(ins, self.strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in self.strides)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, channels, T) of such lengths (B,) to frames (B, ceil(T / prod(strides)), width) and a mask.

        What lies beyond a row's length must be zero; frames beyond its own are.
        """
        for conv, norm, stride in zip(self.convs, self.norms, self.strides, strict=True):
            x = conv(F.pad(x, (stride, -x.shape[-1] % stride)))
            x = F.gelu(norm(x.mT)).mT
            lengths = -(-lengths // stride)
            mask = torch.arange(x.shape[-1], device=x.device) < lengths[:, None]
            x = x.masked_fill(~mask.unsqueeze(1), 0)
        return x.mT, mask
