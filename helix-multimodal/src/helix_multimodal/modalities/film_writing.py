"""Writes films by FFmpeg: without loss in Matroska, or as H.264 in MP4."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import attrs
import av
import numpy as np

from helix_kernel.errors import InputError
from helix_multimodal.modalities import film_times

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_TICKS = Fraction(1, 1000)
_SOUND_BLOCK = 1 << 14
_SLICED = 16
"""Sides from which on a frame of FFV1 is cut into slices; FFmpeg refuses slices without a pixel."""
_H264 = {".mp4", ".m4v", ".mov"}


@attrs.frozen
class Contents:
    """What a film is written of.

    Args:
        frames: (T, H, W, 3) uint8.
        times: (T,) seconds, each a millisecond or more after the one before.
        rate: Frames a second; None where they have no one rate.
        waveform: (C, S) float32, which begins with the first frame; None for a silent film.
        sound_rate: In Hz.
    """

    frames: NDArray[Any]
    times: NDArray[Any]
    rate: float | None
    waveform: NDArray[Any] | None = None
    sound_rate: int = 0


def write(contents: Contents, suffix: str) -> bytes:
    """Return a Matroska film of FFV1 in RGB and PCM, which loses nothing, or what a suffix names.

    Of ``.mp4``, ``.m4v`` and ``.mov`` that is H.264 (crf 18) and AAC, which lose some; sides that are odd
    are kept by colours that are not halved.

    Raises:
        InputError: FFmpeg here has no such encoder, or the film is none that it takes.
    """
    lossy = suffix.lower() in _H264
    tag = film_times.written(contents.times, contents.rate)
    file = io.BytesIO()
    try:
        options = {"fflags": "bitexact"}
        with av.open(file, "w", format="mov" if lossy else "matroska", options=options) as container:
            if not lossy:
                container.metadata[film_times.TAG] = tag
            _fill(container, contents, lossy=lossy)
    except (av.error.FFmpegError, ValueError, OverflowError) as error:
        raise InputError(
            f"a film of {'H.264' if lossy else 'FFV1'} cannot hold frames {contents.frames.shape} with sound "
            f"at {contents.sound_rate} Hz: {error}"
        ) from error
    return file.getvalue()


def _fill(container: Any, contents: Contents, *, lossy: bool) -> None:
    pictures = _h264(container, contents) if lossy else _ffv1(container, contents)
    sound: Any = None
    if contents.waveform is not None:
        sound = container.add_stream("aac" if lossy else "pcm_f32le", rate=contents.sound_rate)
        sound.layout = _layout(len(contents.waveform))
    waiting = [_frames(contents, pictures), _sound(contents, sound) if sound else iter(())]
    # Players want what belongs together close together.
    heads = [next(each, None) for each in waiting]
    while any(head is not None for head in heads):
        number = min((head.time, place) for place, head in enumerate(heads) if head is not None)[1]
        stream = (pictures, sound)[number]
        container.mux(stream.encode(heads[number]))
        heads[number] = next(waiting[number], None)
    for stream in (pictures, sound):
        if stream is not None:
            container.mux(stream.encode(None))


def _ffv1(container: Any, contents: Contents) -> Any:
    stream = _stream(container, contents, "ffv1", "bgr0")
    # A fixed number of slices gives the same bytes on any number of cores; each has a checksum.
    slices = "4" if min(stream.height, stream.width) >= _SLICED else "1"
    stream.codec_context.options = {"level": "3", "slices": slices, "slicecrc": "1", "g": "1"}
    return stream


def _h264(container: Any, contents: Contents) -> Any:
    halved = contents.frames.shape[1] % 2 == 0 and contents.frames.shape[2] % 2 == 0
    stream = _stream(container, contents, "libx264", "yuv420p" if halved else "yuv444p")
    stream.codec_context.options = {"crf": "18", "threads": "1"}
    return stream


def _stream(container: Any, contents: Contents, codec: str, pixels: str) -> Any:
    rate = None if contents.rate is None else Fraction(contents.rate).limit_denominator(10_000)
    stream = container.add_stream(codec, rate=rate or 25)
    stream.height, stream.width = contents.frames.shape[1:3]
    stream.pix_fmt = pixels
    stream.codec_context.time_base = stream.time_base = _TICKS
    return stream


def _frames(contents: Contents, stream: Any) -> Iterator[Any]:
    for pixels, time in zip(contents.frames, contents.times, strict=True):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format=stream.pix_fmt)
        frame.pts, frame.time_base = film_times.milliseconds(time), _TICKS
        yield frame


def _sound(contents: Contents, stream: Any) -> Iterator[Any]:
    waveform = contents.waveform
    assert waveform is not None
    first = film_times.milliseconds(contents.times[0])
    planar = stream.codec_context.format.is_planar
    size = stream.codec_context.frame_size or _SOUND_BLOCK
    for start in range(0, waveform.shape[1], size):
        block = waveform[:, start : start + size].astype(np.float32)
        data = np.ascontiguousarray(block if planar else block.T.reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(data, "fltp" if planar else "flt", stream.layout)
        frame.rate, frame.time_base = contents.sound_rate, Fraction(1, contents.sound_rate)
        frame.pts = round(Fraction(first * contents.sound_rate, 1000)) + start
        yield frame


def _layout(n_channels: int) -> str:
    return {1: "mono", 2: "stereo"}.get(n_channels, f"{n_channels} channels")
