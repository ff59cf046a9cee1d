"""The protocol: what a component of kind `augmentation` is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch


class Augmentation(Protocol):
    """Changes the inputs of a batch at random, by numbers that follow from a seed alone."""

    def __call__(self, inputs: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Return changed inputs.

        Args:
            inputs: (B, L) int64, bytes 0 to 255; they stay as they are.
            seed: Decides what is changed, 0 to 2**63 - 1. Equal arguments give equal results, whatever else
                the process draws.

        Returns:
            (B, L) int64, new memory, bytes 0 to 255.
        """
        ...
