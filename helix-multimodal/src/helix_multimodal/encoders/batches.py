"""What encoders and decoders ask of a batch: that it is of their kind of data, and its own values alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from helix_multimodal.inputs import Padded

_FLOATING = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_FORMATS: dict[str, tuple[str, tuple[torch.dtype, ...]]] = {
    "text": ("B, L", (torch.uint8,)),
    "image": ("B, C, H, W", (torch.uint8, torch.int32)),
    "audio": ("B, C, T", _FLOATING),
    "video": ("B, T, C, H, W", (torch.uint8,)),
    "point-cloud": ("B, N, D", _FLOATING),
}


def check_batch(name: str, batch: Padded, modality: str) -> None:
    """Check that a batch is of the kind of data that a component takes.

    Raises:
        ArgumentError: Its values have another dtype or another number of axes than the modality's, or its
            sizes are not one for each axis.
    """
    shape, dtypes = _FORMATS[modality]
    n_axes = shape.count(",") + 1
    values, sizes = batch
    if values.dim() != n_axes or values.dtype not in dtypes or sizes.shape != (len(values), n_axes - 1):
        names = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes[:2])
        raise ArgumentError(
            f"{name}: the batch has values {tuple(values.shape)} of {values.dtype} and sizes "
            f"{tuple(sizes.shape)}; allowed is {modality}: {names} ({shape}) and a size for each axis"
        )


def own_places(batch: Padded) -> Tensor:
    """Return which elements are the samples' own: bool, of the shape of the values."""
    inside = batch.present.view(-1, *(1 for _ in batch.values.shape[1:]))
    for axis in range(batch.values.dim() - 1):
        shape = [len(batch.values)] + [1] * (batch.values.dim() - 1)
        shape[axis + 1] = batch.values.shape[axis + 1]
        inside = inside & batch.within(axis).view(shape)
    return inside


def own_values(batch: Padded) -> Tensor:
    """Return the values with zeros in place of whatever lies beyond a sample's own size, be it NaN."""
    return batch.values.masked_fill(~own_places(batch), 0)


def mono(batch: Padded, dtype: torch.dtype) -> Tensor:
    """Return the mean of each sound's own channels, (B, T), zeros beyond its end."""
    channels = batch.sizes[:, :1].clamp(min=1)
    return own_values(batch).to(dtype).sum(1) / channels.to(dtype)


def unit_values(batch: Padded, dtype: torch.dtype) -> Tensor:
    """Return pixels as numbers in 0 to 1: of 8 bits where they are uint8, of 16 where they are int32."""
    top = 255 if batch.values.dtype == torch.uint8 else 65535
    return own_values(batch).to(dtype) / top
