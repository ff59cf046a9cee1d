"""Reads files of sound block by block, and writes them: WAV here, all others by libsndfile."""

from __future__ import annotations

import io
import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np
import soundfile

from helix_kernel.errors import DataError, InputError
from helix_multimodal.files import check_size, is_file, reading
from helix_multimodal.modalities import sound_ffmpeg, wav
from helix_multimodal.modalities.containers import container_of
from helix_multimodal.modalities.framing import check_whole, windowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from helix_kernel.modality import Source
    from helix_multimodal.modalities.framing import Window

_HEAD = 4096
_BLOCK = 1 << 20
_UNKNOWN = 1 << 62
_INTEGERS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
_INTEGERS |= {"ULAW": 16, "ALAW": 16, "IMA_ADPCM": 16, "MS_ADPCM": 16, "GSM610": 16}
_INTEGERS |= {"ALAC_16": 16, "ALAC_20": 24, "ALAC_24": 24, "ALAC_32": 32}
_TELLS_ITS_LENGTH = {"FLAC", "WAV", "WAVEX", "AIFF", "AU", "RF64", "W64"}
_FLOATING = {"AIFF", "AU"}
_WRITTEN = {
    ".flac": ("FLAC", None),
    ".aiff": ("AIFF", None),
    ".aif": ("AIFF", None),
    ".au": ("AU", None),
    ".ogg": ("OGG", "VORBIS"),
    ".oga": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}


@attrs.frozen
class Sound:
    """A file of sound that is open.

    Args:
        where: What errors call the file.
        format: Name of its format, such as ``WAV``.
        rate: Samples a second.
        n_channels: Number of channels.
        n_frames: Samples of each channel, as the header says; None where it does not.
        bits: Bits of a sample that is an integer; None where samples are floating.
        double: Whether they are floating and have 64 bits.
        read: Returns the next samples (T, C), fewer at the end, given their number and dtype; raises
            `DataError` where the file is damaged.
    """

    where: str
    format: str
    rate: int
    n_channels: int
    n_frames: int | None
    bits: int | None
    double: bool
    read: Callable[[int, str], NDArray[Any]]

    def check_end(self, n_frames: int) -> None:
        """Raise `DataError` where fewer samples were read than the header, if it can know, says there are."""
        if self.format in _TELLS_ITS_LENGTH and n_frames < (self.n_frames or 0):
            raise DataError(
                f"{self.where} is cut short: it says that it has {self.n_frames:,} samples, and has "
                f"{n_frames:,}"
            )


@contextmanager
def opened(source: Source, max_bytes: int) -> Iterator[Sound]:
    """Open a path, or an open file from where it stands, which stays open.

    Raises:
        DataError: There is none, it is no sound of a kind that is read, or it is damaged or cut short.
    """
    with reading(source) as raw:
        window = windowed(raw, max_bytes)
        container = container_of(window.read(_HEAD))
        if container is None or container.kind != "audio":
            raise DataError(f"{raw.where} is no sound of a kind that is read")
        check_whole(window, container.name, raw.where)
        window.seek(0)
        # libsndfile opens a path itself: it reads in small steps, which cost more through Python.
        handle = window if is_file(source) else os.fspath(source)  # type: ignore[arg-type]  # mypy cannot tell
        with ExitStack() as stack:
            if container.name in sound_ffmpeg.CONTAINERS:
                yield _by_ffmpeg(window, container.name, raw.where, stack)
                return
            sound = _by_libsndfile(handle, raw.where, stack)
            if sound.n_frames is None and container.name == "flac":  # libsndfile fails at the end of it
                window.seek(0)
                sound = _by_ffmpeg(window, container.name, raw.where, stack)
            yield sound


def _by_libsndfile(handle: Any, where: str, stack: ExitStack) -> Sound:
    try:
        file = stack.enter_context(soundfile.SoundFile(handle))
    except (soundfile.SoundFileError, OSError, ValueError, TypeError) as error:
        raise DataError(f"{where} is damaged, or no sound of a kind that is read: {_said(error)}") from error

    def read(n_frames: int, dtype: str) -> NDArray[Any]:
        try:
            block: NDArray[Any] = file.read(n_frames, dtype=dtype, always_2d=True)
        except (soundfile.SoundFileError, OSError, ValueError, MemoryError) as error:
            raise DataError(f"{where} is damaged or cut short: {_said(error)}") from error
        return block

    return Sound(
        where=where,
        format=file.format,
        rate=file.samplerate,
        n_channels=file.channels,
        n_frames=file.frames if 0 <= file.frames < _UNKNOWN else None,
        bits=_INTEGERS.get(file.subtype),
        double=file.subtype == "DOUBLE",
        read=read,
    )


def _by_ffmpeg(window: Window, name: str, where: str, stack: ExitStack) -> Sound:
    file = stack.enter_context(sound_ffmpeg.decoded(window, name, where))
    called = sound_ffmpeg.CONTAINERS.get(name, name.upper())
    return Sound(where, called, file.rate, file.n_channels, None, None, double=False, read=file.read)


def blocks(
    sound: Sound, n_frames: int | None, size: int, dtype: str, max_bytes: int
) -> Iterator[NDArray[Any]]:
    """Yield the first samples, or all, in blocks (T, C) of a size, the last one shorter.

    Raises:
        DataError: The file is damaged, cut short, or gives more than `max_bytes`.
    """
    found, each = 0, sound.n_channels * np.dtype(dtype).itemsize
    while n_frames is None or found < n_frames:
        wanted = size if n_frames is None else min(size, n_frames - found)
        block = sound.read(wanted, dtype)
        found += len(block)
        check_size(sound.where, found * each, max_bytes)
        if len(block):
            yield block
        if len(block) < wanted:
            sound.check_end(found)
            return


def write(samples: NDArray[Any], rate: int, bits: int | None, suffix: str) -> bytes:
    """Return a file of samples (T, C) floating, of the format of a suffix; WAV where it tells no other.

    WAV, AIFF and AU hold integers where `bits` says so and floating numbers otherwise; FLAC holds integers
    of at most 24 bits, to which others are rounded; Vorbis, Opus and MP3 lose some of it.

    Raises:
        InputError: The format cannot hold them.
    """
    kind, subtype = _WRITTEN.get(suffix.lower(), ("WAV", None))
    if kind == "WAV":
        return wav.write(samples, rate, bits)
    if kind not in _FLOATING and not np.isfinite(samples).all():
        raise InputError(f"a {kind} file cannot hold NaN nor infinity; allowed is WAV, which holds all")
    if kind == "FLAC":
        bits = min(bits or 24, 24)
    if bits is not None and subtype is None:
        kept, subtype = wav.integers(samples, bits), "PCM_S8" if bits == 8 else f"PCM_{bits}"
    else:
        kept, subtype = samples, subtype or ("DOUBLE" if samples.dtype == np.float64 else "FLOAT")
    file = io.BytesIO()
    try:
        n_channels = samples.shape[1]
        with soundfile.SoundFile(file, "w", rate, n_channels, format=kind, subtype=subtype) as written:
            for start in range(0, len(kept), _BLOCK):  # of longer ones libsndfile's Vorbis overflows a stack
                written.write(np.ascontiguousarray(kept[start : start + _BLOCK]))
    except (soundfile.SoundFileError, ValueError, TypeError) as error:
        raise InputError(
            f"a {subtype if kind == 'OGG' else kind} file cannot hold {samples.shape[1]} channels at {rate} "
            f"Hz: {_said(error)}; allowed is WAV, which holds all"
        ) from error
    return file.getvalue()


def _said(error: Exception) -> str:
    """Return what libsndfile says, without what Python calls the file."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
