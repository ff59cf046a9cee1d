"""Any kind of data as bytes, each sample's own and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_multimodal.encoders.batches import own_places, own_values
from helix_multimodal.inputs import Padded

_TOP = 32767


def element_width(dtype: torch.dtype) -> int:
    """Return how many bytes an element becomes: uint8 1; int32, which holds 16 bits, and floats 2.

    Raises:
        ArgumentError: Elements of the dtype are not known as bytes.
    """
    if dtype == torch.uint8:
        return 1
    if dtype == torch.int32 or dtype.is_floating_point:
        return 2
    raise ArgumentError(f"values are of {dtype}, allowed is uint8, int32 (of 16 bits) or a floating dtype")


def to_bytes(batch: Padded) -> tuple[Tensor, Tensor]:
    """Return the bytes of each sample's elements in C order of its own sizes, low byte first.

    Floating values are those in -1 to 1 as integers of 16 bits, x times 32767, rounded and clamped, as sound
    is stored; what lies beyond -1 to 1, as points may, is lost.

    Returns:
        Bytes (B, L) uint8, zeros after the end of a row, and how many each row has (B,).

    Raises:
        ArgumentError: See `element_width`.
    """
    width = element_width(batch.values.dtype)
    values = own_values(batch)
    if values.dtype.is_floating_point:
        # Rounded in float64, so that a model's precision changes no byte.
        values = (values.double().clamp(-1, 1) * _TOP).round().to(torch.int32)
    flat = values.flatten(1)
    if batch.values.dim() > 2:
        flat = _to_front(flat, own_places(batch).flatten(1))
    parts = [(flat.to(torch.int32) >> (8 * byte) & 255).to(torch.uint8) for byte in range(width)]
    return torch.stack(parts, -1).flatten(1), n_bytes(batch.sizes, width)


def from_bytes(data: Tensor, sizes: Tensor, dtype: torch.dtype) -> Padded:
    """Return the samples whose bytes are in rows (B, L) uint8, the reverse of `to_bytes`.

    Raises:
        ArgumentError: See `element_width`.
    """
    width, n_axes = element_width(dtype), sizes.shape[1]
    longest = [max(1, int(size)) for size in sizes.max(0).values] if len(sizes) else [1] * n_axes
    blank = Padded(torch.zeros(len(sizes), *longest, dtype=dtype, device=data.device), sizes)
    own = own_places(blank).flatten(1)
    count = max(1, int(own.sum(1).max())) if len(own) else 1
    # A negative amount cuts.
    words = F.pad(data, (0, count * width - data.shape[1])).to(torch.int32).view(len(data), count, width)
    flat = sum(words[..., byte] << (8 * byte) for byte in range(width))
    assert isinstance(flat, Tensor)
    if dtype.is_floating_point:
        flat = torch.where(flat > _TOP, flat - 65536, flat).to(dtype) / _TOP
    ranks = (own.cumsum(1) - 1).clamp(min=0)
    values = flat.to(dtype).gather(1, ranks).masked_fill(~own, 0)
    return Padded(values.view_as(blank.values), sizes)


def n_bytes(sizes: Tensor, width: int) -> Tensor:
    """Return how many bytes samples of these sizes (B, axes) have, (B,)."""
    return sizes.prod(1) * width


def _to_front(flat: Tensor, own: Tensor) -> Tensor:
    """Bring a row's own elements to its front, in their order, and zeros after them."""
    ranks = torch.where(own, own.cumsum(1) - 1, flat.shape[1])
    room = flat.new_zeros(len(flat), flat.shape[1] + 1)
    return room.scatter(1, ranks, flat)[:, :-1]
