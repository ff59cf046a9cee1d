"""Pixels (H, W, C) brought to other channels, depths and sizes; C = 1 grey, 2 with alpha, 3 RGB, 4 RGBA."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def with_channels(pixels: NDArray[Any], channels: str, background: Sequence[int]) -> NDArray[Any]:
    """Return pixels as ``grey``, ``rgb`` or ``rgba``; alpha that is dropped lets the background through.

    Args:
        pixels: (H, W, 1 to 4) uint8 or uint16.
        channels: What a pixel is to hold; ``own`` leaves it as it is.
        background: Red, green and blue, 0 to 255.
    """
    if channels == "own":
        return pixels
    most = np.iinfo(pixels.dtype).max
    colours, alpha = _parts(pixels)
    if channels == "rgba":
        rgb = colours if colours.shape[2] == 3 else colours.repeat(3, 2)
        opaque = np.full((*pixels.shape[:2], 1), most, pixels.dtype)
        return np.concatenate([rgb, opaque if alpha is None else alpha], 2)
    if alpha is not None:
        rgb = colours if colours.shape[2] == 3 else colours.repeat(3, 2)
        behind = np.array(background, np.float64) / 255 * most
        share = alpha / most
        colours = np.rint(rgb * share + behind * (1 - share)).astype(pixels.dtype)
    if channels == "rgb":
        return colours if colours.shape[2] == 3 else colours.repeat(3, 2)
    if colours.shape[2] == 1:
        return colours
    grey: NDArray[Any] = np.rint(colours @ _LUMA).astype(pixels.dtype)[..., None]
    return grey


def with_size(pixels: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Return pixels of another height and width, by bicubic interpolation that averages where it shrinks.

    Colours count as much as they are opaque, so that what lies under full transparency does not bleed.
    """
    if pixels.shape[:2] == size:
        return pixels
    most = np.iinfo(pixels.dtype).max
    colours, alpha = _parts(pixels)
    if alpha is None:
        return _rounded(_resized(colours.astype(np.float32), size), pixels.dtype)
    weights = alpha.astype(np.float32) / most
    share = _resized(weights, size)
    premultiplied = _resized(colours.astype(np.float32) * weights, size)
    straight = premultiplied / np.maximum(share, 1e-6)
    return _rounded(np.concatenate([straight, share * most], 2), pixels.dtype)


def with_depth(pixels: NDArray[Any], depth: int) -> NDArray[Any]:
    """Return pixels of 8 bits (uint8) or 16 (uint16); black stays black and white white."""
    if depth == 16:
        return pixels if pixels.dtype == np.uint16 else pixels.astype(np.uint16) * np.uint16(257)
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)


def _parts(pixels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return colours (H, W, 1 or 3) and alpha (H, W, 1) or None."""
    if pixels.shape[2] in (2, 4):
        return pixels[..., :-1], pixels[..., -1:]
    return pixels, None


def _resized(values: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    planes = torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1), np.float32))[None]
    found = torch.nn.functional.interpolate(
        planes, size=size, mode="bicubic", align_corners=False, antialias=True
    )
    return found[0].numpy().transpose(1, 2, 0)


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    rounded: NDArray[Any] = np.rint(values).clip(0, np.iinfo(dtype).max).astype(dtype)
    return rounded
