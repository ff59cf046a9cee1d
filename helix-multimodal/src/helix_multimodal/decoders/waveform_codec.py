"""A codec of sound: waveform to codes and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.decoders.quantized import Quantized
from helix_multimodal.decoders.spectral_distance import spectral_distance
from helix_multimodal.decoders.synthesis import Synthesis
from helix_multimodal.encoders.batches import check_batch, mono
from helix_multimodal.encoders.learned_frames import FrameConvs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helix_multimodal.inputs import Padded
    from helix_multimodal.trunk import LayerFactory


class WaveformCodec(nn.Module):
    """synthesis(quantizer(analysis(sound))): one vector, and so its codes, for `prod(strides)` samples.

    After SoundStream (Zeghidour et al. 2021, arXiv:2107.03312, section III), without its discriminators, and
    small. All is causal. Channels are averaged before.

    Args:
        d_model: Width of the vectors that become codes.
        quantizer: Builds a layer with ``encode`` and ``decode``, such as rvq or fsq.
        strides: Strides of the convolutions, from the waveform inwards.
        d_hidden: Channels between them; None for d_model.
        spectral_weight: Weight of the spectral distance beside L1.

    Raises:
        ArgumentError: A size is below 1, or the quantizer lacks a method.
    """

    modality = "audio"

    def __init__(
        self,
        d_model: int,
        *,
        quantizer: LayerFactory,
        strides: Sequence[int] = (4, 4, 5, 4),
        d_hidden: int | None = None,
        spectral_weight: float = 0.1,
    ) -> None:
        super().__init__()
        width = d_model if d_hidden is None else d_hidden
        check_at_least("waveform codec", d_model=d_model, d_hidden=width, strides=min(strides, default=0))
        self.spectral_weight = spectral_weight
        self.analysis = FrameConvs(1, strides, width)
        self.in_proj = nn.Linear(width, d_model)
        self.quantizer = Quantized("waveform codec", d_model, quantizer)
        self.synthesis = Synthesis(d_model, strides, width)

    def forward(self, batch: Padded) -> Tensor:
        """Return sounds as they come back from their codes, (B, T).

        Raises:
            ArgumentError: The batch is not of sound.
        """
        x, mask = self._analysed(batch)
        sound: Tensor = self.synthesis(self.quantizer(x, mask))
        return sound[:, : batch.values.shape[2]]

    def encode(self, batch: Padded) -> Tensor:
        """Return the codes of each `prod(strides)` samples, (B, F) or (B, F, n_quantizers) int64.

        Raises:
            ArgumentError: The batch is not of sound.
        """
        return self.quantizer.encode(self._analysed(batch)[0])

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sounds (B, F · prod(strides)) that codes stand for."""
        sound: Tensor = self.synthesis(self.quantizer.decode(codes))
        return sound

    def loss(self, sound: Tensor, target: Padded) -> Tensor:
        """Return how far each sound (B, T) is from its target, (B,); see `sound_distance`."""
        return sound_distance(sound, target, self.spectral_weight)

    def auxiliary_loss(self) -> Tensor | None:
        """Return what the quantizer adds to the loss, or None."""
        return self.quantizer.auxiliary_loss()

    def _analysed(self, batch: Padded) -> tuple[Tensor, Tensor]:
        check_batch("waveform codec", batch, self.modality)
        sound = mono(batch, self.in_proj.weight.dtype).unsqueeze(1)
        frames, mask = self.analysis(sound, batch.sizes[:, 1] * batch.present)
        return self.in_proj(frames), mask


def sound_distance(sound: Tensor, target: Padded, spectral_weight: float) -> Tensor:
    """Return mean |difference of samples| + weight · `spectral_distance` of each row, (B,); 0 if missing.

    Args:
        sound: (B, T), at least as long as the longest target; what lies beyond a target's end is passed over.
        target: Sounds, of which the channels are averaged.
        spectral_weight: Weight of the spectral distance.
    """
    y = mono(target, sound.dtype)
    lengths = target.sizes[:, 1] * target.present
    x = sound[:, : y.shape[1]]
    x = x.masked_fill(torch.arange(y.shape[1], device=y.device) >= lengths[:, None], 0)
    samples = (x - y).abs().sum(1) / lengths.clamp(min=1)
    return samples + spectral_weight * spectral_distance(x, y, lengths) if spectral_weight else samples
