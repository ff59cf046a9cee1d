"""The augmentation `mask-bytes`: bytes that are replaced by one that stands for nothing."""

from __future__ import annotations

import torch


class MaskBytes:
    """Replaces each byte with a chance of its own.

    Args:
        rate: The chance, 0 to 1.
        replacement: The byte in its place, 0 to 255.
    """

    def __init__(self, *, rate: float = 0.1, replacement: int = 0) -> None:
        self.rate = rate
        self.replacement = replacement

    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Return inputs (B, L) in which some bytes are replaced."""
        chances = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(seed))
        return inputs.masked_fill(chances < self.rate, self.replacement)
