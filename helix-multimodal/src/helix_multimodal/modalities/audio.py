"""Sound, as samples of each channel between -1 and 1."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.files import MAX_BYTES, check_size, suffix_of, writing
from helix_multimodal.modalities import sound_files, wav
from helix_multimodal.modalities.containers import container_of
from helix_multimodal.modalities.resampling import mixed, regular, resampled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_kernel.modality import Source
    from helix_multimodal.modalities.sound_files import Sound

ASSUMED_RATE = 16_000
"""Hz of a tensor, which tells none, where the option ``rate`` says nothing."""
_BITS = (8, 16, 24, 32)
_MOST_CHANNELS = 1024
_BLOCK = 1 << 16
_UNENDING = 1 << 62


class Audio:
    """A sample holds ``waveform`` (C, T), of `dtype`, and its rate in Hz.

    Integers of n bits are divided by 2^(n - 1), which float32 holds exactly up to 24 bits; integers of 32
    bits and doubles need `dtype` float64. Metadata say the ``format``, the ``bits`` of a sample, and
    whether it was ``floating``. `save` writes such samples as a WAV file, unless a suffix names another
    format, and floating ones where integers would lose anything.

    Args:
        rate: Hz that sound is resampled to; None for its own.
        channels: 1 for the mean of all, 2 for left and right; None for what the file has.
        seconds: Time from the beginning that is kept; None for all.
        dtype: ``float32`` or ``float64``.
        max_bytes: Bytes that sound may take when it is decoded.

    Raises:
        ArgumentError: An option is out of range.
    """

    suffix = ".wav"
    tolerance = 0.0
    framed = True

    def __init__(
        self,
        rate: int | None = None,
        channels: int | None = None,
        seconds: float | None = None,
        dtype: str = "float32",
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if rate is not None and rate < 1:
            raise ArgumentError(f"audio: rate is {rate}, allowed is >= 1")
        if channels not in (None, 1, 2):
            raise ArgumentError(f"audio: channels is {channels!r}, allowed is 1, 2 or None")
        if seconds is not None and not 0 < seconds < math.inf:
            raise ArgumentError(f"audio: seconds is {seconds}, allowed is > 0")
        if dtype not in ("float32", "float64"):
            raise ArgumentError(f"audio: dtype is {dtype!r}, allowed is 'float32' or 'float64'")
        self.rate, self.channels, self.seconds = rate, channels, seconds
        self.dtype, self.max_bytes = dtype, max_bytes
        self.shape: tuple[int | None, ...] = (channels, None)

    def sniff(self, head: bytes, name: str | None) -> float:  # noqa: ARG002 - the first bytes tell
        """Return how likely a file is sound, by what it begins with; of Ogg files, by the streams in it."""
        container = container_of(head)
        return container.likely if container is not None and container.kind == "audio" else 0.0

    def load(self, source: Source) -> Sample:
        """Read a file: WAV, FLAC, Ogg with Vorbis or Opus, AIFF, AU, MP3, M4A and some others.

        Raises:
            DataError: There is none, it is damaged, cut short or no sound, or takes more than `max_bytes`.
        """
        with sound_files.opened(source, self.max_bytes) as sound:
            size = _BLOCK
            if self._rate_of(sound) == sound.rate:  # in one block, which need not be joined
                allowed = self.max_bytes // self._n_bytes(1, sound.n_channels) + 1
                size = max(1, allowed if sound.n_frames is None else sound.n_frames)
            parts = list(self._blocks(sound, size))
            empty = mixed(np.empty((0, sound.n_channels), self.dtype), self.channels)
            joined = parts[0] if len(parts) == 1 else np.concatenate([empty, *parts])
            return self._sample(sound, joined)

    def stream(self, source: Source, *, seconds: float = 10.0) -> Iterator[Sample]:
        """Yield a file in blocks, in memory that does not grow with it; joined they are what `load` gives.

        Args:
            source: See `load`.
            seconds: Length of each block but the last, which is shorter.

        Raises:
            ArgumentError: `seconds` is not above 0.
            DataError: See `load`.
        """
        if not 0 < seconds < math.inf:
            raise ArgumentError(f"seconds is {seconds}, allowed is > 0")
        with sound_files.opened(source, self.max_bytes) as sound:
            size = max(1, round(seconds * self._rate_of(sound)))
            check_size(sound.where, self._n_bytes(size, sound.n_channels), self.max_bytes)
            for block in regular(self._blocks(sound, _BLOCK, whole=False), size):
                yield self._sample(sound, block)

    def encode(self, sample: Sample) -> Tensor:
        """Return the waveform as a tensor (C, T).

        Raises:
            InputError: The sample holds none.
            ArgumentError: It has another number of channels than `channels` says.
        """
        waveform = _waveform_of(sample)
        if waveform.shape[0] != (self.channels or waveform.shape[0]):
            raise ArgumentError(
                f"the sample's waveform has {waveform.shape[0]} channels, and channels={self.channels} needs "
                f"{self.channels}"
            )
        return torch.from_numpy(np.array(waveform, self.dtype, order="C"))

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of a tensor (C, T), at `rate` or else at `ASSUMED_RATE`."""
        waveform = np.array(tensor.detach().cpu().to(getattr(torch, self.dtype)).numpy(), order="C")
        return Sample(arrays={"waveform": waveform}, rate=float(self.rate or ASSUMED_RATE))

    def save(self, sample: Sample, target: Source) -> None:
        """Write a WAV file, or what a path's suffix names: FLAC, AIFF, AU, Ogg (Vorbis, Opus), MP3.

        Raises:
            InputError: The sample holds no waveform or no rate, or such as the format cannot hold.
        """
        samples = _waveform_of(sample).T
        data = sound_files.write(samples, _rate_in(sample), _bits_of(sample, samples), suffix_of(target))
        with writing(target) as file:
            file.write(data)

    def samples(self, seed: int) -> Sequence[Sample]:
        """Return short sounds of some numbers of channels, with metadata of each number of bits."""
        draw = np.random.default_rng(seed)
        rate = self.rate or ASSUMED_RATE
        most = 1_000 if self.seconds is None else round(self.seconds * rate)
        found = []
        for number, bits in enumerate((16, 8, 24, None)):
            n_channels = self.channels or (1, 2, 3, 2)[number]
            waveform = draw.uniform(-1, 1, (n_channels, min((401, 33, 1, 64)[number], most)))
            if bits is None:
                waveform[0, :2] = 1.0, -1.5  # beyond the range, as mixing makes them
            else:
                waveform = np.rint(waveform * (1 << (bits - 1))).clip(None, (1 << (bits - 1)) - 1)
                waveform /= 1 << (bits - 1)
                waveform[0, 0] = -1.0
            metadata: dict[str, int | bool] = {} if bits is None else {"bits": bits, "floating": False}
            arrays = {"waveform": waveform.astype(self.dtype)}
            found.append(Sample(arrays=arrays, rate=float(rate), metadata=metadata))
        return found

    def _rate_of(self, sound: Sound) -> int:
        return self.rate or sound.rate

    def _blocks(self, sound: Sound, size: int, *, whole: bool = True) -> Iterator[NDArray[Any]]:
        """Yield samples (T, C) as the options want them; where `whole`, all of them are held at once."""
        rate, n_frames = self._rate_of(sound), sound.n_frames
        if self.seconds is not None:
            wanted = math.ceil(self.seconds * sound.rate)
            n_frames = wanted if n_frames is None else min(n_frames, wanted)
        limit = self.max_bytes if whole else _UNENDING
        for n, n_channels in ((1, sound.n_channels), (rate / sound.rate, self.channels or sound.n_channels)):
            check_size(sound.where, self._n_bytes(math.ceil((n_frames or 0) * n), n_channels), limit)
        read = sound_files.blocks(sound, n_frames, size, self.dtype, limit)
        changed = resampled((mixed(block, self.channels) for block in read), sound.rate, rate)
        if self.seconds is None:
            return changed
        return regular(changed, max(1, size * rate // sound.rate), round(self.seconds * rate))

    def _n_bytes(self, n_frames: int, n_channels: int) -> int:
        return n_frames * n_channels * np.dtype(self.dtype).itemsize

    def _sample(self, sound: Sound, samples: NDArray[Any]) -> Sample:
        bits, double = sound.bits, sound.double
        if self._rate_of(sound) != sound.rate or (self.channels == 1 and sound.n_channels > 1):
            bits, double = None, True
        if bits is not None and (bits <= 24 or self.dtype == "float64"):
            metadata: dict[str, str | int | bool] = {"format": sound.format, "bits": bits, "floating": False}
        else:
            width = 64 if double and self.dtype == "float64" else 32
            metadata = {"format": sound.format, "bits": width, "floating": True}
        return Sample(arrays={"waveform": samples.T}, rate=float(self._rate_of(sound)), metadata=metadata)


def _waveform_of(sample: Sample) -> NDArray[Any]:
    waveform = sample.arrays.get("waveform")
    if (
        waveform is None
        or waveform.ndim != 2
        or waveform.dtype not in (np.float32, np.float64)
        or not 1 <= waveform.shape[0] <= _MOST_CHANNELS
    ):
        given = "not there" if waveform is None else f"{waveform.shape} of {waveform.dtype}"
        raise InputError(
            f"the sample's array 'waveform' is {given}, allowed is (C, T) of float32 or float64, C from 1 to "
            f"{_MOST_CHANNELS}"
        )
    return waveform


def _rate_in(sample: Sample) -> int:
    rate = sample.rate
    if rate is None or not 1 <= rate < 1 << 31 or rate != int(rate):
        raise InputError(f"the sample's rate is {rate}, allowed is a whole number of Hz from 1")
    return int(rate)


def _bits_of(sample: Sample, samples: NDArray[Any]) -> int | None:
    """Return of how many bits integers are that hold all, as the metadata say; None where they would not."""
    bits = sample.metadata.get("bits")
    if sample.metadata.get("floating", True) or not isinstance(bits, int) or bits not in _BITS:
        return None
    return bits if wav.fits(samples, bits) else None
