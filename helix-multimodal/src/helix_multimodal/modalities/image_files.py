"""Reads and writes files of pictures: by Pillow, and PNG of 16 bits, which it cuts to 8, by FFmpeg."""

from __future__ import annotations

import io
import struct
import warnings
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from helix_kernel.errors import DataError, InputError
from helix_multimodal.files import check_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Metadata = dict[str, str | int | float | bool]

_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS_OF_PNG = {0: 1, 2: 3, 4: 2, 6: 4}
_FFMPEG = {1: "gray16be", 2: "ya16be", 3: "rgb48be", 4: "rgba64be"}
_CHANNELS_OF_FFMPEG = {name: n_channels for n_channels, name in _FFMPEG.items()}
_READ = ["PNG", "JPEG", "WEBP", "GIF", "TIFF", "PPM", "BMP", "AVIF", "JPEG2000", "QOI", "SUN", "SGI", "XBM"]
"""Formats of Pillow that are read: what needs other programs, as EPS does, is not, nor what has no mark."""
_DIRECT = {"L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "1": "L"}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
    ".bmp": "BMP",
}
_HOLDS = {"JPEG": {1, 3}, "PPM": {1, 3}, "BMP": {1, 3, 4}, "WEBP": {3, 4}}
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_deflate"},
}


def read(data: bytes, where: str, max_bytes: int) -> tuple[NDArray[Any], Metadata]:
    """Return the pixels (H, W, C) of a file, uint8 or uint16, turned as its EXIF data say, and metadata.

    Of a file that holds several pictures this is the first.

    Raises:
        DataError: It is damaged, cut short, no picture, of a kind that is not read, or takes more bytes than
            allowed when it is decoded.
    """
    if data.startswith(_PNG):
        _check_whole(data, where)
    if data.startswith(_PNG) and data[24] == 16:
        return _read_deep_png(data, where, max_bytes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked here, and of odd metadata
            with Pillow.open(io.BytesIO(data), formats=_READ) as image:
                check_size(where, image.width * image.height * 4, max_bytes)
                metadata = _metadata(image)
                image.load()
                ImageOps.exif_transpose(image, in_place=True)
                return _pixels(image, where), metadata
    except DataError:
        raise
    except Pillow.DecompressionBombError as error:
        raise DataError(f"{where} would take too many bytes when it is decoded: {error}") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{where} is no picture of a kind that is read") from error
    except MemoryError as error:
        raise DataError(f"{where} takes more memory than there is") from error
    except Exception as error:  # Pillow's decoders raise whatever a damaged file makes them raise
        raise DataError(f"{where} is damaged or cut short: {error}") from error


def write(pixels: NDArray[Any], suffix: str) -> bytes:
    """Return a file of pixels (H, W, C) uint8 or uint16, of the format of a suffix; PNG where it tells none.

    Raises:
        InputError: The format cannot hold such pixels.
    """
    kind = _FORMATS.get(suffix.lower(), "PNG")
    n_channels = pixels.shape[2]
    deep = pixels.dtype == np.uint16
    if n_channels not in _HOLDS.get(kind, {1, 2, 3, 4}) or (deep and kind not in ("PNG", "TIFF")):
        raise InputError(
            f"a {kind} file cannot hold {n_channels} channels of {pixels.dtype.itemsize * 8} bits; "
            "allowed is PNG, which holds all"
        )
    if deep and kind == "PNG":
        return _write_deep_png(pixels)
    if deep and n_channels != 1:
        raise InputError("a TIFF file of 16 bits is written of grey pictures only; allowed is PNG, for all")
    image = Pillow.fromarray(pixels[..., 0] if n_channels == 1 else pixels)
    assert deep or image.mode == _MODES[n_channels]
    file = io.BytesIO()
    image.save(file, format=kind, **_OPTIONS.get(kind, {}))
    return file.getvalue()


def _check_whole(data: bytes, where: str) -> None:
    """Raise `DataError` unless a PNG file ends with its end chunk, without which Pillow takes it, too."""
    place = len(_PNG)
    while place + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        kind, place = data[place + 4 : place + 8], place + 12 + length
        if kind == b"IEND" and place <= len(data):
            return
    raise DataError(f"{where} is cut short: a PNG file ends with the chunk IEND")


def _metadata(image: Pillow.Image) -> Metadata:
    found: Metadata = {"format": image.format or ""}
    orientation = image.getexif().get(0x0112, 1)
    if orientation in range(2, 9):
        found["orientation"] = orientation
    n_frames = getattr(image, "n_frames", 1)
    if n_frames > 1:
        found["frames"] = n_frames
    return found


def _pixels(image: Pillow.Image, where: str) -> NDArray[Any]:
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.size and (values.min() < 0 or values.max() > 65535):
            raise DataError(
                f"{where} has values from {values.min()} to {values.max()}, allowed is 0 to 65535"
            )
        return values.astype(np.uint16)[..., None]
    if image.mode == "F":
        raise DataError(f"{where} has pixels that are floating, allowed are 8 or 16 bits")
    mode = _DIRECT.get(image.mode)
    if mode is None:
        transparent = image.has_transparency_data
        mode = "RGBA" if transparent else "RGB"
    elif "transparency" in image.info and mode in ("L", "RGB"):
        mode = {"L": "LA", "RGB": "RGBA"}[mode]
    values = np.array(image if image.mode == mode else image.convert(mode))
    return values if values.ndim == 3 else values[..., None]


def _read_deep_png(data: bytes, where: str, max_bytes: int) -> tuple[NDArray[Any], Metadata]:
    width, height = struct.unpack(">II", data[16:24])
    n_channels = _CHANNELS_OF_PNG.get(data[25])
    if n_channels is None:
        raise DataError(f"{where} is damaged: a PNG file of 16 bits has no colour type {data[25]}")
    check_size(where, width * height * n_channels * 2, max_bytes)
    try:
        with Pillow.open(io.BytesIO(data), formats=["PNG"]) as image:
            metadata = {**_metadata(image), "bits": 16}
            image.load()  # which checks what FFmpeg lets pass: checksums, and that nothing is missing
        with av.open(io.BytesIO(data), "r", format="png_pipe") as container:
            frame = next(container.decode(video=0))
            n_channels = _CHANNELS_OF_FFMPEG[frame.format.name]  # one more where a colour is transparent
            plane = frame.planes[0]
            rows = np.frombuffer(bytes(plane), np.uint8).reshape(height, plane.line_size)
            used = rows[:, : width * n_channels * 2].copy().view(">u2")
    except Exception as error:  # both libraries raise many kinds
        raise DataError(f"{where} is damaged or cut short: {error}") from error
    pixels = used.astype(np.uint16).reshape(height, width, n_channels)
    return _turned(pixels, metadata.get("orientation", 1)), metadata


def _turned(pixels: NDArray[Any], orientation: object) -> NDArray[Any]:
    """Return pixels as the EXIF tag Orientation says that they are to be seen (CIPA DC-008, 4.6.4)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _write_deep_png(pixels: NDArray[Any]) -> bytes:
    height, width, n_channels = pixels.shape
    codec: Any = av.CodecContext.create("png", "w")
    codec.width, codec.height = width, height
    codec.pix_fmt = _FFMPEG[n_channels]
    codec.time_base = Fraction(1, 1)
    frame = av.VideoFrame(width, height, _FFMPEG[n_channels])
    plane = frame.planes[0]
    rows = np.zeros((height, plane.line_size), np.uint8)
    rows[:, : width * n_channels * 2] = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    plane.update(rows.tobytes())
    return b"".join(bytes(packet) for packet in (*codec.encode(frame), *codec.encode(None)))
