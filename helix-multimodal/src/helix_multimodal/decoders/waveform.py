"""The decoder `waveform`: sound from tokens, through the codes of a quantizer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from helix_multimodal.checks import check_at_least
from helix_multimodal.decoders.quantized import Quantized
from helix_multimodal.decoders.stretch import Stretch
from helix_multimodal.decoders.synthesis import Synthesis
from helix_multimodal.decoders.waveform_codec import sound_distance
from helix_multimodal.encoders.batches import check_batch, own_places
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.named import named
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence

_RVQ = named("layer", "rvq")


class Waveform(nn.Module):
    """sound = synthesis(quantizer(trunk(stretch(tokens)))), one vector for `prod(strides)` samples.

    The second half of a codec, see `WaveformCodec`: what goes to the synthesis are codes, so that a sound can
    be stored as such. One channel is made; all channels of a sound are given it, and are compared by their
    mean.

    Args:
        d_model: Width D of the tokens.
        quantizer: Builds a layer with ``encode`` and ``decode``, such as rvq or fsq.
        strides: Strides of the transposed convolutions, from the waveform inwards.
        d_hidden: Channels between them; None for d_model.
        layers: Build layers that the vectors go through before the quantizer; see `Trunk`.
        spectral_weight: Weight of the spectral distance beside L1.

    Raises:
        ArgumentError: A size is below 1, or the quantizer lacks a method.
    """

    modality = "audio"

    def __init__(
        self,
        d_model: int,
        *,
        quantizer: LayerFactory = _RVQ,
        strides: Sequence[int] = (4, 4, 5, 4),
        d_hidden: int | None = None,
        layers: Sequence[LayerFactory] = (),
        spectral_weight: float = 0.1,
    ) -> None:
        super().__init__()
        width = d_model if d_hidden is None else d_hidden
        check_at_least("waveform", d_model=d_model, d_hidden=width, strides=min(strides, default=0))
        self.spectral_weight = spectral_weight
        self.stretch = Stretch(d_model)
        self.trunk = Trunk(d_model, layers)
        self.norm = nn.RMSNorm(d_model)
        self.quantizer = Quantized("waveform", d_model, quantizer)
        self.synthesis = Synthesis(d_model, strides, width)

    def forward(self, tokens: Tokens, like: Padded) -> Tensor:
        """Return sounds (B, T) of the lengths of `like`.

        Raises:
            ArgumentError: `like` is not of sound.
        """
        check_batch("waveform", like, self.modality)
        return self._made(tokens, like.sizes, like.values.shape[2])

    def codes(self, tokens: Tokens, sizes: Tensor) -> Tensor:
        """Return the codes of sounds of the sizes (B, 2), (B, F) or (B, F, n_quantizers) int64."""
        return self.quantizer.encode(self._vectors(tokens, sizes, int(sizes[:, 1].max()))[0])

    def loss(self, prediction: Tensor, target: Padded) -> Tensor:
        """Return how far each sound is from its target, (B,); see `sound_distance`.

        Raises:
            ArgumentError: The target is not of sound.
        """
        check_batch("waveform", target, self.modality)
        return sound_distance(prediction, target, self.spectral_weight)

    @torch.no_grad()
    def reconstruct(self, tokens: Tokens, sizes: Tensor) -> Padded:
        """Return sounds of the sizes (B, 2), float32 in -1 to 1, the same in all of a sound's channels."""
        n_channels, length = sizes.clamp(min=1).max(0).values.tolist()
        sound = self._made(tokens, sizes, length).clamp(-1, 1).float()
        made = Padded(sound.unsqueeze(1).repeat(1, n_channels, 1), sizes)
        return Padded(made.values.masked_fill(~own_places(made), 0), sizes)

    def auxiliary_loss(self) -> Tensor | None:
        """Return what the quantizer adds to the loss, or None."""
        return self.quantizer.auxiliary_loss()

    def _made(self, tokens: Tokens, sizes: Tensor, length: int) -> Tensor:
        sound: Tensor = self.synthesis(self.quantizer(*self._vectors(tokens, sizes, length)))
        return sound[:, :length]

    def _vectors(self, tokens: Tokens, sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
        stride = self.synthesis.stride
        counts = -(-sizes[:, 1] // stride) * (sizes > 0).all(1)
        longest = max(1, -(-length // stride))
        mask = torch.arange(longest, device=sizes.device) < counts[:, None]
        x = self.trunk(Tokens(self.stretch(tokens, counts, longest), mask)).values
        return self.norm(x), mask
