"""The augmentation `swap-neighbours`: bytes that change places with the next one."""

from __future__ import annotations

import torch


class SwapNeighbours:
    """Swaps the bytes 2k and 2k + 1 of a row, each pair with a chance of its own.

    Args:
        rate: The chance, 0 to 1.
    """

    def __init__(self, *, rate: float = 0.1) -> None:
        self.rate = rate

    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Return inputs (B, L) in which some pairs are swapped; the last of an odd number stays."""
        batch_size, n_pairs = inputs.shape[0], inputs.shape[1] // 2
        pairs = inputs[:, : 2 * n_pairs].reshape(batch_size, n_pairs, 2)
        chances = torch.rand(batch_size, n_pairs, 1, generator=torch.Generator().manual_seed(seed))
        swapped = torch.where(chances < self.rate, pairs.flip(-1), pairs)
        return torch.cat([swapped.reshape(batch_size, 2 * n_pairs), inputs[:, 2 * n_pairs :]], dim=1)
