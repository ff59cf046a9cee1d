"""Grids of pixels cut into boxes, and put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence


def cut(values: Tensor, box: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """Cut the last axes into boxes, filled up with zeros where they do not divide.

    Args:
        values: (B, C, …), with as many further axes as a box has.
        box: The box's size along each of them.

    Returns:
        Boxes (B, N, C · the box's volume), in C order of the grid, and the grid.
    """
    spare = [
        amount
        for length, size in zip(reversed(values.shape[2:]), reversed(box), strict=True)
        for amount in (0, -length % size)
    ]
    x = F.pad(values, spare)
    grid = tuple(length // size for length, size in zip(x.shape[2:], box, strict=True))
    for axis, size in enumerate(box):
        x = torch.unflatten(x, 2 + 2 * axis, (-1, size))
    n_axes = len(box)
    order = [0, *(2 + 2 * axis for axis in range(n_axes)), 1, *(3 + 2 * axis for axis in range(n_axes))]
    return x.permute(order).flatten(n_axes + 1).flatten(1, n_axes), grid


def assemble(boxes: Tensor, grid: Sequence[int], box: Sequence[int]) -> Tensor:
    """Put boxes (B, N, C · volume) together to (B, C, grid · box along each axis), the reverse of `cut`."""
    n_axes = len(grid)
    volume = 1
    for size in box:
        volume *= size
    channels = boxes.shape[-1] // volume
    x = boxes.reshape(len(boxes), *grid, channels, *box)
    order = [0, n_axes + 1]
    for axis in range(n_axes):
        order += [1 + axis, n_axes + 2 + axis]
    x = x.permute(order)
    for axis in range(n_axes):
        x = x.flatten(2 + axis, 3 + axis)
    return x


def box_mask(sizes: Tensor, grid: Sequence[int], box: Sequence[int]) -> Tensor:
    """Return which boxes (B, N) hold anything of a sample, whose sizes (B, axes) are along the cut axes."""
    mask = (sizes > 0).all(-1).view(-1, *(1 for _ in grid))
    for axis, (count, size) in enumerate(zip(grid, box, strict=True)):
        shape = [len(sizes)] + [1] * len(grid)
        shape[axis + 1] = count
        starts = torch.arange(count, device=sizes.device) * size
        mask = mask & (starts < sizes[:, axis, None]).view(shape)
    return mask.expand(len(sizes), *grid).flatten(1)
