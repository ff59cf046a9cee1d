"""The augmentation passes acme-augment's suite, and swaps what it says."""

from __future__ import annotations

import torch
from acme_augment.testing import AugmentationSuite
from umbrella_noise.swap_neighbours import SwapNeighbours


class TestSwapNeighbours(AugmentationSuite):
    def make_augmentation(self) -> SwapNeighbours:
        return SwapNeighbours()


def test_at_rate_1_every_pair_is_swapped_and_at_rate_0_none() -> None:
    row = torch.tensor([[1, 2, 3, 4, 5]])
    assert SwapNeighbours(rate=1)(row, seed=0).tolist() == [[2, 1, 4, 3, 5]]
    assert SwapNeighbours(rate=0)(row, seed=0).tolist() == [[1, 2, 3, 4, 5]]
