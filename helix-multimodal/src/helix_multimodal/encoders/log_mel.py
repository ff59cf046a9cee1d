"""The encoder `log-mel`: frames of sound as logarithms of the energies in mel bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.checks import check_at_least
from helix_multimodal.encoders.batches import check_batch, mono
from helix_multimodal.encoders.mel import MelScale, mel_filters
from helix_multimodal.encoders.positions import Positions, PositionsKind
from helix_multimodal.inputs import Padded, Tokens
from helix_multimodal.trunk import LayerFactory, Trunk

if TYPE_CHECKING:
    from collections.abc import Sequence

_FLOOR = 1e-10


class LogMel(nn.Module):
    """Tokens of sound: trunk(linear(log-mel energies of a few frames) + position).

    Frame t is of the n_fft samples around sample t · hop, zeros outside the sound, times a Hann window;
    T samples have ceil(T / hop) frames. A feature is (log10(max(filters · |FFT|², 1e-10)) + 4) / 4, at
    least -1.5, and about 1 for loud sound in -1 to 1. Channels are averaged before.

    Args:
        d_model: Width D of the tokens.
        rate: Samples a second of the sounds that it is given.
        n_fft: Samples of a frame.
        hop: Samples from a frame to the next.
        n_mels: Number of mel bands, from 0 Hz to rate / 2.
        scale: Mel scale, slaney or htk; see `mel_filters`.
        stack: Frames that become one token.
        positions: What tells where a token is: none, sinusoidal or learned. Recurrent layers need none.
        layers: Build the layers that tokens go through; see `Trunk`.

    Raises:
        ArgumentError: A size is below 1, hop is above n_fft, or there is no such scale or positions.
    """

    modality = "audio"
    filters: Tensor
    window: Tensor

    def __init__(
        self,
        d_model: int,
        *,
        rate: int = 16000,
        n_fft: int = 400,
        hop: int = 160,
        n_mels: int = 40,
        scale: MelScale = "slaney",
        stack: int = 4,
        positions: PositionsKind = "none",
        layers: Sequence[LayerFactory] = (),
    ) -> None:
        super().__init__()
        check_at_least("log-mel", d_model=d_model, rate=rate, hop=hop, n_mels=n_mels, stack=stack)
        if n_fft < hop:
            raise ArgumentError(f"log-mel: n_fft is {n_fft}, allowed is >= hop={hop}")
        self.hop, self.stack, self.n_fft = hop, stack, n_fft
        self.register_buffer("filters", mel_filters(rate, n_fft, n_mels, scale).float(), persistent=False)
        window = torch.hann_window(n_fft, dtype=torch.float64).float()
        self.register_buffer("window", window, persistent=False)
        self.in_proj = nn.Linear(n_mels * stack, d_model)
        self.positions = Positions(d_model, 1, positions)
        self.trunk = Trunk(d_model, layers)

    def forward(self, batch: Padded) -> Tokens:
        """Return tokens (B, ceil(ceil(T / hop) / stack), D).

        Raises:
            ArgumentError: The batch is not of sound.
        """
        check_batch("log-mel", batch, self.modality)
        frames = self.features(mono(batch, self.in_proj.weight.dtype))
        lengths = -(-batch.sizes[:, 1] // self.hop) * batch.present
        places = torch.arange(frames.shape[1], device=frames.device)
        frames = frames.masked_fill((places >= lengths[:, None]).unsqueeze(-1), 0)
        stacked = F.pad(frames, (0, 0, 0, -frames.shape[1] % self.stack))
        x = self.in_proj(stacked.view(len(stacked), -1, self.stack * frames.shape[2]))
        mask = places[:: self.stack] < lengths[:, None]
        tokens: Tokens = self.trunk(Tokens(x + self.positions((x.shape[1],), x), mask))
        return tokens

    def features(self, sound: Tensor) -> Tensor:
        """Map sound (B, T) to its features (B, ceil(T / hop), n_mels)."""
        before = self.n_fft // 2
        after = -sound.shape[1] % self.hop + self.n_fft - before
        frames = F.pad(sound, (before, after)).unfold(1, self.n_fft, self.hop)
        frames = frames[:, : -(-sound.shape[1] // self.hop)]
        # Half precision has no FFT on every device, and its three digits are too few for energies.
        exact = torch.promote_types(sound.dtype, torch.float32)
        with torch.autocast(sound.device.type, enabled=False):
            spectrum: Tensor = torch.fft.rfft((frames * self.window).to(exact))
            energies = (spectrum.real.square() + spectrum.imag.square()) @ self.filters.T.to(exact)
        features: Tensor = (energies.clamp(min=_FLOOR).log10() + 4) / 4
        return features.to(sound.dtype)
