"""Reads films by FFmpeg: their frames with times, one after the other, and their sound."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import av
import numpy as np
from av.video.reformatter import VideoReformatter

from helix_kernel.errors import DataError
from helix_multimodal.files import check_size, is_file, reading
from helix_multimodal.modalities import ffv1, film_times
from helix_multimodal.modalities.containers import container_of
from helix_multimodal.modalities.framing import Window, check_whole, windowed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from helix_kernel.modality import Source
    from helix_multimodal.modalities.film_times import Times

    Frame = tuple[float, NDArray[Any]]
    """The time of a frame in seconds, and its pixels (H, W, 3) uint8, which hold until the next frame."""

_HEAD = 4096
_STARTS_ANYWHERE = ("mpegts", "mpeg")
_GAP = 0.1
"""Seconds from which on a hole between two packets of sound is silence; containers round times."""
_FAILURES = (av.error.FFmpegError, OSError, ValueError, MemoryError, EOFError, OverflowError)


@attrs.frozen
class Film:
    """A file that is open for the frames of its film, and for its sound.

    Args:
        where: What errors call the file.
        format: FFmpeg's name of its container, such as ``matroska``.
        codec: FFmpeg's name of how the frames are coded, such as ``h264``.
        rate: Frames a second, in the mean; None where they have no one rate.
        n_frames: How many the header says there are; 0 where it does not.
        size: Height and width of a frame as it is shown, turned as the file says.
        rotation: Degrees by which frames are turned, counterclockwise.
        sound_rate: Samples of the sound a second; None where there is no sound.
        max_bytes: Bytes that frames and sound may take.
    """

    where: str
    format: str
    codec: str
    rate: float | None
    n_frames: int
    size: tuple[int, int]
    rotation: int
    sound_rate: int | None
    max_bytes: int
    _times: Times | None
    _file: str | Window

    def frames(self, size: tuple[int, int] | None = None, start: float = 0.0) -> Iterator[Frame]:
        """Yield the frames from a time on, in the order in which they are shown.

        Args:
            size: Height and width that they are brought to; None for their own.
            start: In seconds; decoding begins at the last key frame before it.

        Raises:
            DataError: The file is damaged, or its frames change their size and `size` is None.
        """
        with _container(self._file, self.format, self.where) as container:
            stream = _pictures(container, self.where, self.max_bytes)
            begin = _origin(container, self.format)
            if start > 0:
                _seek(container, stream, start + begin)
            scaler = _Scaler(self, size)
            decoded = _decoded(container, stream, self.where, cut=self.format in _STARTS_ANYWHERE)
            for number, frame in enumerate(decoded):
                time = _time_of(frame, number, self.rate) - begin
                time = time if self._times is None else self._times.exact(time)
                if time >= start:
                    yield time, scaler.pixels(frame)

    def sound(self, start: float, stop: float | None) -> NDArray[np.float32]:
        """Return the sound (C, T) between two times, silent where it begins after the first of them.

        Raises:
            DataError: It is damaged, or takes too much memory.
        """
        with _container(self._file, self.format, self.where) as container:
            stream = next(each for each in container.streams.audio if each.codec_context is not None)
            stream.thread_type = "AUTO"
            begin = start + _origin(container, self.format)
            seconds = None if stop is None else stop - start
            return _sound(_blocks(container, stream, self), begin, seconds, self)


@contextmanager
def opened(source: Source, max_bytes: int) -> Iterator[Film]:
    """Open a path, or an open file from where it stands, which stays open.

    Raises:
        DataError: There is none, it is no film of a kind that is read, or it is damaged or cut short.
    """
    with reading(source) as raw:
        window = windowed(raw, max_bytes)
        found = container_of(window.read(_HEAD))
        if found is None or found.kind != "video":
            raise DataError(f"{raw.where} is no film of a kind that is read")
        check_whole(window, found.name, raw.where)
        # FFmpeg takes a name for an address; behind "file:" it is a name, whatever is in it.
        file = window if is_file(source) else f"file:{Path(source).absolute()}"  # type: ignore[arg-type]
        with _container(file, found.name, raw.where) as container:
            film = _film(container, found.name, raw.where, file, max_bytes)
        yield film


@contextmanager
def _container(file: str | Window, name: str, where: str) -> Iterator[Any]:
    """Open a file as what its first bytes say, and as nothing else: playlists would name files to open."""
    if isinstance(file, Window):
        file.seek(0)
    try:
        container: Any = av.open(file, format=name)
    except _FAILURES as error:
        raise DataError(f"{where} is damaged, or no film of a kind that is read: {error}") from error
    try:
        yield container
    except _FAILURES as error:
        raise DataError(f"{where} is damaged: {error}") from error
    finally:
        container.close()


def _film(container: Any, name: str, where: str, file: str | Window, max_bytes: int) -> Film:
    stream = _pictures(container, where, max_bytes)
    times = film_times.read(container.metadata.get(film_times.TAG))
    first = next(_decoded(container, stream, where, cut=name in _STARTS_ANYWHERE), None)
    if first is None:
        raise DataError(f"{where} holds no frame that can be decoded")
    rotation = int(first.rotation) % 360
    turned = rotation in (90, 270)
    sound = next((each for each in container.streams.audio if each.codec_context is not None), None)
    mean = stream.average_rate or stream.guessed_rate
    return Film(
        where=where,
        format=name,
        codec=stream.codec_context.codec.name,
        rate=(float(mean) if mean else None) if times is None else times.rate,
        n_frames=max(0, stream.frames),
        size=(first.width, first.height) if turned else (first.height, first.width),
        rotation=rotation,
        sound_rate=None if sound is None else sound.rate or None,
        max_bytes=max_bytes,
        times=times,
        file=file,
    )


def _pictures(container: Any, where: str, max_bytes: int) -> Any:
    """Return the stream of pictures, ready to be decoded; covers of sound are none."""
    stream = container.streams.best("video")
    if stream is None or stream.disposition & av.stream.Disposition.attached_pic:
        raise DataError(f"{where} holds no pictures")
    context = stream.codec_context
    if context is None:
        raise DataError(f"{where} holds pictures that are coded in a way FFmpeg does not know")
    check_size(where, context.width * context.height * 3, max_bytes)
    context.options = {"max_pixels": str(max(1, max_bytes // 3))}
    stream.thread_type = "AUTO"
    return stream


def _decoded(container: Any, stream: Any, where: str, *, cut: bool) -> Iterator[Any]:
    """Yield decoded frames; where `cut`, damage at the beginning and at the end is left out.

    Recordings, and the sound of clips, begin and end with parts of what was cut off.
    """
    begun, damage = not cut, ""
    for packet in container.demux(stream):
        if packet.size and stream.codec_context.codec.name == "ffv1":
            _check_sums(bytes(packet), where, own=film_times.TAG in container.metadata)
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:
            frames, damage = [], str(error)
        for frame in frames:
            if frame.is_corrupt:
                damage = f"FFmpeg says so of what is shown at {frame.time} s"
                continue
            if damage and begun:
                raise DataError(f"{where} is damaged: {damage}")
            begun, damage = True, ""
            yield frame
    if damage and not cut:
        raise DataError(f"{where} is damaged: {damage}")


def _check_sums(packet: bytes, where: str, *, own: bool) -> None:
    """Raise `DataError` for wrong sums, and in a film that `save` wrote for missing ones."""
    wrong = ffv1.is_damaged(packet)
    if wrong or (own and wrong is None):
        raise DataError(f"{where} is damaged: a frame has another sum than it says")


def _seek(container: Any, stream: Any, seconds: float) -> None:
    """Go to the last key frame before a time; a file that cannot is decoded from its beginning."""
    try:
        container.seek(int(seconds / stream.time_base), stream=stream, backward=True)
    except av.error.FFmpegError:
        container.seek(0)


def _origin(container: Any, name: str) -> float:
    """Return the time that counts as 0: streams of broadcasts begin anywhere."""
    return (container.start_time or 0) / av.time_base if name in _STARTS_ANYWHERE else 0.0


def _time_of(frame: Any, number: int, rate: float | None) -> float:
    return float(frame.time) if frame.time is not None else number / (rate or 25.0)


class _Scaler:
    """Makes pixels of frames, all of one size."""

    def __init__(self, film: Film, size: tuple[int, int] | None) -> None:
        self._film, self._resized, self._size = film, size is not None, size or film.size
        self._reformatter = VideoReformatter()

    def pixels(self, frame: Any) -> NDArray[Any]:
        turned = self._film.rotation in (90, 270)
        height, width = self._size[::-1] if turned else self._size
        if (frame.height, frame.width) != (height, width) and not self._resized:
            raise DataError(
                f"{self._film.where} has frames of {frame.width} by {frame.height} pixels after such of "
                f"{width} by {height}; give size, which all are brought to"
            )
        how = "BICUBIC" if (frame.height, frame.width) != (height, width) else None
        scaled = self._reformatter.reformat(frame, width, height, "rgb24", interpolation=how)
        plane = scaled.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:height, : 3 * width]
        pixels = rows.reshape(height, width, 3) if plane.line_size == 3 * width else _strided(rows, width)
        return np.rot90(pixels, self._film.rotation // 90) if self._film.rotation else pixels


def _strided(rows: NDArray[Any], width: int) -> NDArray[Any]:
    """Return rows (H, 3 W), each of which has some bytes behind it, as (H, W, 3) without a copy."""
    return np.lib.stride_tricks.as_strided(rows, (len(rows), width, 3), (rows.strides[0], 3, 1))


def _blocks(container: Any, stream: Any, film: Film) -> Iterator[tuple[float, NDArray[np.float32]]]:
    """Yield the sound in blocks (C, T) with their times."""
    resampler = av.AudioResampler(format="fltp", rate=film.sound_rate)
    n_bytes = 0
    for frame in _decoded(container, stream, film.where, cut=True):
        for part in resampler.resample(frame):
            block = part.to_ndarray()
            n_bytes += block.nbytes
            check_size(film.where, n_bytes, film.max_bytes)
            yield float(frame.time or 0.0), block.astype(np.float32, copy=False)


def _sound(
    blocks: Iterator[tuple[float, NDArray[np.float32]]], begin: float, seconds: float | None, film: Film
) -> NDArray[np.float32]:
    """Return blocks one behind the other from a time on, silent before them and where one is missing."""
    rate = film.sound_rate or 1
    parts: list[NDArray[np.float32]] = []
    n_samples, slack = 0, 0
    for time, block in blocks:
        place = round((time - begin) * rate)
        if place > n_samples + slack:
            check_size(film.where, place * len(block) * block.itemsize, film.max_bytes)
            parts.append(np.zeros((len(block), place - n_samples), np.float32))
            n_samples = place
        elif not parts and place < 0:
            n_samples = place
        parts.append(block[:, min(block.shape[1], max(0, -n_samples)) :])
        n_samples, slack = n_samples + block.shape[1], round(_GAP * rate)
    joined = np.concatenate(parts, 1) if parts else np.zeros((1, 0), np.float32)
    return joined if seconds is None else joined[:, : max(0, round(seconds * rate))]
