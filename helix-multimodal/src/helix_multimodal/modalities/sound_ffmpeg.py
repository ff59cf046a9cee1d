"""Decodes sound by FFmpeg where libsndfile does not, or writes to the terminal what is wrong with a file."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import av
import numpy as np

from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from helix_multimodal.modalities.framing import Window

CONTAINERS = {"mp3": "MP3", "mov": "M4A", "amr": "AMR", "wv": "WAVPACK"}
"""What FFmpeg decodes, by its names, and what a sample's metadata call it."""
_FAILURES = (av.error.FFmpegError, OSError, ValueError, MemoryError, EOFError, OverflowError)


@attrs.define
class Decoded:
    """Sound that FFmpeg decodes as it is asked for.

    Args:
        rate: Samples a second.
        n_channels: Number of channels.
        where: What errors call the file.
    """

    rate: int
    n_channels: int
    where: str
    _frames: Iterator[Any]
    _held: list[NDArray[Any]] = attrs.field(factory=list, init=False)

    def read(self, n_frames: int, dtype: str) -> NDArray[Any]:
        """Return the next samples (T, C), fewer at the end, of one dtype in all calls.

        Raises:
            DataError: The file is damaged.
        """
        resampler = av.AudioResampler(format="fltp" if dtype == "float32" else "dblp")
        n_held = sum(block.shape[1] for block in self._held)
        try:
            while n_held < n_frames and (frame := next(self._frames, None)) is not None:
                if (frame.rate, frame.layout.nb_channels) != (self.rate, self.n_channels):
                    raise DataError(f"{self.where} changes its rate or its channels on the way")
                for part in resampler.resample(frame):
                    self._held.append(part.to_ndarray())
                    n_held += part.samples
        except _FAILURES as error:
            raise DataError(f"{self.where} is damaged or cut short: {error}") from error
        joined = np.concatenate([np.empty((self.n_channels, 0), dtype), *self._held], 1)
        self._held = [joined[:, n_frames:]]
        return joined[:, :n_frames].T


@contextmanager
def decoded(file: Window, name: str, where: str) -> Iterator[Decoded]:
    """Open a file as what its first bytes say, and as nothing else.

    Args:
        file: Stands at its beginning.
        name: FFmpeg's name of the container.
        where: What errors call the file.

    Raises:
        DataError: It is damaged, or holds no sound.
    """
    try:
        container: Any = av.open(file, format=name, metadata_errors="replace")
    except _FAILURES as error:
        raise DataError(f"{where} is damaged, or no sound of a kind that is read: {error}") from error
    with container:
        if not container.streams.audio:
            raise DataError(f"{where} holds no sound")
        stream = container.streams.audio[0]
        context = stream.codec_context
        if context is None or not context.rate or not context.channels:
            raise DataError(f"{where} is damaged: its codec, its rate or its channels are unknown")
        yield Decoded(context.rate, context.channels, where, container.decode(stream))
