"""Films, as frames of 8 bits in RGB with their times, and the sound beside them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.files import MAX_BYTES, check_size, suffix_of, writing
from helix_multimodal.modalities import film_files, film_writing
from helix_multimodal.modalities.containers import container_of
from helix_multimodal.modalities.film_times import at_rate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_kernel.modality import Source
    from helix_multimodal.modalities.film_files import Film, Frame

ASSUMED_RATE = 25.0
"""Frames a second of a tensor, which tells none, where the option ``rate`` says nothing."""
_SHORTEST_FIRST = 16


class Video:
    """A sample holds ``frames`` (T, H, W, 3) uint8, ``timestamps`` (T,) in seconds, maybe a ``waveform``.

    Its rate is that of the frames. The waveform (C, S) float32 begins with the first frame; metadata say its
    ``sound_rate`` in Hz, besides the ``format``, the ``codec``, and the ``rotation`` that was applied. A
    tensor (T, 3, H, W) holds the frames alone. `save` loses nothing: it writes FFV1 in Matroska, unless a
    path's suffix names MP4.

    Args:
        size: Height and width that frames are brought to; None for their own.
        rate: Frames a second, each the nearest in time; None for all, at their own times.
        max_frames: Frames from the beginning that are kept; None for all.
        sound: Whether the sound is read, too.
        max_bytes: Bytes that frames, and sound, may take when they are decoded.

    Raises:
        ArgumentError: An option is out of range.
    """

    suffix = ".mkv"
    tolerance = 0.0
    framed = True
    dtype = "uint8"

    def __init__(
        self,
        size: tuple[int, int] | None = None,
        rate: float | None = None,
        max_frames: int | None = None,
        *,
        sound: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if size is not None and min(size) < 1:
            raise ArgumentError(f"video: size is {tuple(size)}, allowed is a height and a width >= 1")
        if rate is not None and not 0 < rate <= 1000:
            raise ArgumentError(f"video: rate is {rate}, allowed is above 0 up to 1000")
        if max_frames is not None and max_frames < 1:
            raise ArgumentError(f"video: max_frames is {max_frames}, allowed is >= 1")
        self.size = None if size is None else (size[0], size[1])
        self.rate, self.max_frames, self.sound, self.max_bytes = rate, max_frames, sound, max_bytes
        self.shape: tuple[int | None, ...] = (None, 3, *(self.size or (None, None)))

    def sniff(self, head: bytes, name: str | None) -> float:  # noqa: ARG002 - the first bytes tell
        """Return how likely a file is a film, by what it begins with; of Ogg files, by the streams in it."""
        container = container_of(head)
        return container.likely if container is not None and container.kind == "video" else 0.0

    def load(self, source: Source) -> Sample:
        """Read a file: Matroska, WebM, MP4, MOV, AVI, MPEG, Ogg, FLV, ASF.

        Raises:
            DataError: There is none, it is damaged, cut short or no film, or takes more than `max_bytes`.
        """
        with film_files.opened(source, self.max_bytes) as film:
            gathered = _Gathered(film, self.size or film.size, self._expected(film))
            for time, pixels in self._frames(film, 0.0):
                gathered.add(time, pixels)
                if len(gathered.times) == self.max_frames:
                    break
            if not self.sound or film.sound_rate is None:
                return self._sample(film, *gathered.arrays())
            frames, times = gathered.arrays()
            start, stop = float(times[0]), None
            if self.max_frames == len(times):
                stop = float(times[-1]) + 1 / (self.rate or film.rate or ASSUMED_RATE)
            return self._sample(film, frames, times, film.sound(start, stop))

    def stream(
        self, source: Source, *, start: float = 0.0, stop: float = math.inf, n_frames: int = 16
    ) -> Iterator[Sample]:
        """Yield the frames between two times, some at once, in memory that does not grow; without sound.

        Args:
            source: See `load`.
            start: In seconds; decoding begins at the last key frame before it.
            stop: In seconds; a frame at this time is not among them.
            n_frames: Frames of each sample but the last, which may have fewer.

        Raises:
            ArgumentError: `start` is after `stop`, or `n_frames` below 1.
            DataError: See `load`.
        """
        if not 0 <= start <= stop or n_frames < 1:
            raise ArgumentError(
                f"start is {start}, stop {stop}, n_frames {n_frames}, allowed is 0 <= start <= stop and 1 "
                "frame or more"
            )
        with film_files.opened(source, self.max_bytes) as film:
            gathered = _Gathered(film, self.size or film.size, n_frames)
            for time, pixels in self._frames(film, start):
                if time >= stop:
                    break
                gathered.add(time, pixels)
                if len(gathered.times) == n_frames:
                    yield self._sample(film, *gathered.arrays())
                    gathered = _Gathered(film, self.size or film.size, n_frames)
            if gathered.times:
                yield self._sample(film, *gathered.arrays())

    def encode(self, sample: Sample) -> Tensor:
        """Return the frames as a tensor (T, 3, H, W).

        Raises:
            InputError: The sample holds none.
            ArgumentError: They have another height or width than `size` says.
        """
        frames = _frames_of(sample)
        if self.size is not None and frames.shape[1:3] != self.size:
            raise ArgumentError(
                f"the sample's frames are {frames.shape[1:3]}, and size={self.size} is needed"
            )
        return torch.from_numpy(frames.transpose(0, 3, 1, 2).copy())

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of a tensor (T, 3, H, W) of any dtype, rounded and cut to 0..255.

        Its rate is the option's, or else `ASSUMED_RATE`.
        """
        whole = tensor.detach().cpu()
        if whole.is_floating_point():
            whole = whole.nan_to_num().round()
        frames = whole.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        rate = float(self.rate or ASSUMED_RATE)
        arrays = {"frames": frames.copy(), "timestamps": np.arange(len(frames)) / rate}
        return Sample(arrays=arrays, rate=rate)

    def save(self, sample: Sample, target: Source) -> None:
        """Write a Matroska file, or MP4 or MOV where a path's suffix says so.

        Raises:
            InputError: The sample holds no frames, times that no film can have, or sound without its rate.
        """
        data = film_writing.write(_contents(sample), suffix_of(target))
        with writing(target) as file:
            file.write(data)

    def samples(self, seed: int) -> Sequence[Sample]:
        """Return short silent films of odd sizes, of a single frame up to some."""
        draw = np.random.default_rng(seed)
        rate = float(self.rate or ASSUMED_RATE)
        found = []
        for n_frames, own in ((3, (9, 14)), (1, (1, 1)), (6, (16, 5))):
            height, width = self.size or own
            n_kept = min(n_frames, self.max_frames or n_frames)
            frames = draw.integers(0, 255, (n_kept, height, width, 3), dtype=np.uint8, endpoint=True)
            frames[0, 0, 0] = (0, 255, 255)
            arrays: dict[str, NDArray[Any]] = {"frames": frames, "timestamps": np.arange(n_kept) / rate}
            found.append(Sample(arrays=arrays, rate=rate))
        return found

    def _frames(self, film: Film, start: float) -> Iterator[Frame]:
        frames = film.frames(self.size, start)
        return frames if self.rate is None else at_rate(frames, self.rate, 1 / (film.rate or ASSUMED_RATE))

    def _expected(self, film: Film) -> int:
        """Return how many frames there should be, 0 where nobody knows; headers may lie."""
        known = film.n_frames
        if self.rate is not None:
            known = round(known * self.rate / film.rate) if film.rate else 0
        return known if self.max_frames is None else min(known, self.max_frames)

    def _sample(
        self, film: Film, frames: NDArray[Any], times: NDArray[Any], waveform: NDArray[Any] | None = None
    ) -> Sample:
        arrays: dict[str, NDArray[Any]] = {"frames": frames, "timestamps": times}
        metadata: dict[str, str | int] = {"format": film.format, "codec": film.codec}
        if film.rotation:
            metadata["rotation"] = film.rotation
        if waveform is not None and film.sound_rate is not None:
            arrays["waveform"], metadata["sound_rate"] = waveform, film.sound_rate
        rate = film.rate if self.rate is None else float(self.rate)
        return Sample(arrays=arrays, rate=rate, metadata=metadata)


class _Gathered:
    """Frames in one array, which grows as they come."""

    def __init__(self, film: Film, size: tuple[int, int], expected: int) -> None:
        self.times: list[float] = []
        self._film, self._each = film, size[0] * size[1] * 3
        self._check(expected)
        self._frames = np.empty((expected or _SHORTEST_FIRST, *size, 3), np.uint8)

    def add(self, time: float, pixels: NDArray[Any]) -> None:
        """Add a frame; raise `DataError` where all together take too many bytes."""
        number = len(self.times)
        if number == len(self._frames):
            self._check(number + 1)
            longer = np.empty((2 * number, *self._frames.shape[1:]), np.uint8)
            longer[:number] = self._frames
            self._frames = longer
        self._frames[number] = pixels
        self.times.append(time)

    def arrays(self) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """Return the frames and their times."""
        n_frames = len(self.times)
        frames = self._frames if n_frames == len(self._frames) else self._frames[:n_frames].copy()
        return frames, np.array(self.times, np.float64)

    def _check(self, n_frames: int) -> None:
        check_size(self._film.where, n_frames * self._each, self._film.max_bytes)


def _frames_of(sample: Sample) -> NDArray[Any]:
    frames = sample.arrays.get("frames")
    if (
        frames is None
        or frames.dtype != np.uint8
        or frames.ndim != 4
        or frames.shape[3] != 3
        or not frames.size
    ):
        given = f"only {sorted(sample.arrays)}" if frames is None else f"{frames.shape} of {frames.dtype}"
        raise InputError(
            f"the sample's array 'frames' is {given}, allowed is (T, H, W, 3) of uint8, not empty"
        )
    return frames


def _contents(sample: Sample) -> film_writing.Contents:
    frames = _frames_of(sample)
    rate = sample.rate
    if rate is not None and not 0 < rate < 1 << 16:
        raise InputError(f"the sample's rate is {rate}, allowed is above 0 and below 65,536 frames a second")
    times = sample.arrays.get("timestamps")
    if times is None:
        times = np.arange(len(frames)) / (rate or ASSUMED_RATE)
    if times.shape != frames.shape[:1] or times.dtype.kind != "f":
        raise InputError(
            f"the sample's array 'timestamps' is {times.shape} of {times.dtype}, allowed is a time in "
            f"seconds for each of {len(frames)} frames"
        )
    waveform, sound_rate = sample.arrays.get("waveform"), sample.metadata.get("sound_rate")
    if waveform is None:
        return film_writing.Contents(frames, times, rate)
    if waveform.ndim != 2 or not 1 <= waveform.shape[0] <= 8 or waveform.dtype.kind != "f":
        raise InputError(
            f"the sample's array 'waveform' is {waveform.shape} of {waveform.dtype}, allowed is (1 to 8, S)"
        )
    if not isinstance(sound_rate, int) or not 0 < sound_rate < 1 << 20:
        raise InputError(f"the metadata's 'sound_rate' is {sound_rate!r}, allowed is a whole number of Hz")
    return film_writing.Contents(frames, times, rate, waveform, sound_rate)
