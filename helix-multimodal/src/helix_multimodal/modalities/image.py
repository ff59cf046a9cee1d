"""Pictures, as pixels of 8 or 16 bits with one to four channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from helix_kernel.errors import ArgumentError, InputError
from helix_kernel.modality import Sample
from helix_multimodal.files import MAX_BYTES, content, reading, suffix_of, writing
from helix_multimodal.modalities import image_files
from helix_multimodal.modalities.pixels import with_channels, with_depth, with_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from helix_kernel.modality import Source

_BEGINNINGS = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a|RIFF....WEBP|II\*\0|MM\0\*|P[1-6](\s|(?<=\s)#[^\n]*+\n)++\d"
    rb"|BM....\0\0\0\0....[\x0c\x28\x38\x6c\x7c]\0\0\0|....ftypavi[fs]|\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51\0"
    rb"|qoif........[\x03\x04][\0\x01]|\x59\xa6\x6a\x95|\x01\xda[\0\x01][\x01\x02]\0[\x01-\x03]"
    rb"|#define[ \t]+\w*width[ \t]+\d",
    re.DOTALL,
)
_N_CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}


class Image:
    """A sample holds ``pixels`` (H, W, C) uint8 or uint16: grey, grey and alpha, RGB or RGBA.

    A tensor is (C, H, W), uint8 of 8 bits and int32 of 16. PNG, which `save` writes unless a path's suffix
    names another format, loses nothing.

    Args:
        channels: ``own`` for what the file has, or ``grey``, ``rgb``, ``rgba``.
        size: Height and width that pictures are brought to; None for their own.
        depth: Bits of a tensor's elements, 8 or 16.
        background: What shows through where alpha is dropped.
        max_bytes: Bytes that a picture may take when it is decoded, and that a file may have.

    Raises:
        ArgumentError: A number is out of range.
    """

    suffix = ".png"
    tolerance = 0.0
    framed = True

    def __init__(
        self,
        channels: str = "own",
        size: tuple[int, int] | None = None,
        depth: int = 8,
        background: Sequence[int] = (255, 255, 255),
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if size is not None and min(size) < 1:
            raise ArgumentError(f"image: size is {tuple(size)}, allowed is a height and a width >= 1")
        if depth not in (8, 16):
            raise ArgumentError(f"image: depth is {depth!r}, allowed is 8 or 16")
        if any(not 0 <= value <= 255 for value in background):
            raise ArgumentError(f"image: background is {tuple(background)}, allowed is 0 to 255 each")
        self.channels, self.depth = channels, depth
        self.size = None if size is None else (size[0], size[1])
        self.background, self.max_bytes = tuple(background), max_bytes
        self.dtype = "uint8" if depth == 8 else "int32"
        height, width = (None, None) if self.size is None else self.size
        self.shape: tuple[int | None, ...] = (_N_CHANNELS.get(channels), height, width)

    def sniff(self, head: bytes, name: str | None) -> float:  # noqa: ARG002 - the first bytes tell
        """Return how likely a file is a picture, by what it begins with."""
        return 0.95 if _BEGINNINGS.match(head) else 0.0

    def load(self, source: Source) -> Sample:
        """Read a file; of one that holds several pictures the first.

        Metadata say the ``format``, the number of ``frames`` where there are several, and the EXIF
        ``orientation`` that was applied.

        Raises:
            DataError: There is none, it is damaged, cut short or no picture, or takes more than `max_bytes`.
        """
        with reading(source) as opened:
            data = content(opened, self.max_bytes)
            pixels, metadata = image_files.read(data, opened.where, self.max_bytes)
        return Sample(arrays={"pixels": self._fitted(pixels)}, metadata=metadata)

    def encode(self, sample: Sample) -> Tensor:
        """Return the pixels as a tensor (C, H, W), of `depth` bits.

        Raises:
            ArgumentError: The sample holds none, or of other channels than `channels` says.
        """
        pixels = with_depth(_pixels_of(sample), self.depth)
        if pixels.shape[2] != (self.shape[0] or pixels.shape[2]):
            raise ArgumentError(
                f"the sample's pixels have {pixels.shape[2]} channels, and channels={self.channels!r} needs "
                f"{self.shape[0]}"
            )
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        return torch.from_numpy(planes.copy() if self.depth == 8 else planes.astype(np.int32))

    def decode(self, tensor: Tensor) -> Sample:
        """Return the sample of a tensor (C, H, W) of any dtype; values are rounded and cut to the range."""
        whole = tensor.detach().cpu()
        if whole.is_floating_point():
            whole = whole.nan_to_num().round()
        cut = whole.clamp(0, (1 << self.depth) - 1).to(torch.int32).numpy().transpose(1, 2, 0)
        return Sample(arrays={"pixels": cut.astype(np.uint8 if self.depth == 8 else np.uint16)})

    def save(self, sample: Sample, target: Source) -> None:
        """Write a PNG file, or what a path's suffix names: JPEG, WebP (without loss), TIFF, PPM, PGM, BMP.

        Raises:
            InputError: The sample holds no pixels, or such as the format cannot hold.
        """
        data = image_files.write(_pixels_of(sample), suffix_of(target))
        with writing(target) as file:
            file.write(data)

    def samples(self, seed: int) -> Sequence[Sample]:
        """Return small pictures of each number of channels that the options allow."""
        draw = np.random.default_rng(seed)
        own = _N_CHANNELS.get(self.channels)
        dtype = np.uint8 if self.depth == 8 else np.uint16
        most = np.iinfo(dtype).max
        found = []
        for number, n_channels in enumerate((1, 2, 3, 4) if own is None else (own, own)):
            height, width = self.size or ((1, 1), (5, 3), (2, 7), (4, 4))[number]
            pixels = draw.integers(0, most, (height, width, n_channels), dtype=dtype, endpoint=True)
            pixels[0, 0] = most
            found.append(Sample(arrays={"pixels": pixels}))
        return found

    def _fitted(self, pixels: NDArray[Any]) -> NDArray[Any]:
        fitted = with_channels(pixels, self.channels, self.background)
        return fitted if self.size is None else with_size(fitted, self.size)


def _pixels_of(sample: Sample) -> NDArray[Any]:
    pixels = sample.arrays.get("pixels")
    if (
        pixels is None
        or pixels.ndim != 3
        or pixels.dtype not in (np.uint8, np.uint16)
        or not pixels.size
        or pixels.shape[2] > 4
    ):
        given = f"only {sorted(sample.arrays)}" if pixels is None else f"{pixels.shape} of {pixels.dtype}"
        raise InputError(
            f"the sample's array 'pixels' is {given}, allowed is (H, W, 1 to 4) of uint8 or uint16, not empty"
        )
    return pixels
