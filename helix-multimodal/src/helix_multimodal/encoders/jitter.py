"""Pictures turned, moved, mirrored and lit at random, so that a model learns what does not matter."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def jittered(pixels: Tensor, amount: float) -> Tensor:
    """Return pictures (B, C, H, W) of 0 to 1, each changed in its own way; what moves in repeats the edge.

    Args:
        pixels: Floating.
        amount: 0 for no change. At 1 a picture is mirrored half of the time, turned by up to half a radian,
            brought to 0.6 to 1.4 of its size, moved by up to a third, and lit 0.5 to 1.5 times as much.
    """
    if not amount:
        return pixels
    n = len(pixels)

    def drawn(most: float) -> Tensor:
        return (2 * torch.rand(n, device=pixels.device, dtype=pixels.dtype) - 1) * most * amount

    mirrored = 1 - 2 * (torch.rand(n, device=pixels.device) < 0.5 * amount).to(pixels.dtype)
    angle, scale = drawn(0.5), 1 + drawn(0.4)
    rows = [
        torch.stack([mirrored * scale * angle.cos(), -scale * angle.sin(), drawn(1 / 3)], -1),
        torch.stack([mirrored * scale * angle.sin(), scale * angle.cos(), drawn(1 / 3)], -1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(pixels.shape), align_corners=False)
    moved = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
    return (moved * (1 + drawn(0.5)).view(-1, 1, 1, 1)).clamp(0, 1)
