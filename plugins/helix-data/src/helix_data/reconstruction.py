"""The dataset `reconstruction`: windows of bytes that are their own targets, for autoencoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from helix_data.text_bytes import Batch, TextBytes

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reconstruction(TextBytes):
    """Windows of `TextBytes`, with the same options, whose targets are the bytes themselves.

    What is measured in bits per byte is how well a model gives the bytes back, without what its codes cost.
    """

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> Batch:
        """Return a rank's share of the training batch of a step; see `TextBytes.batch`.

        Returns:
            New tensors on the CPU, (batch_size, seq_len) each, targets equal to the inputs.

        Raises:
            ArgumentError: An argument is out of range.
            DataError: A file has gone or changed its size.
        """
        inputs = super().batch(seed=seed, step=step, rank=rank, world_size=world_size).inputs
        return Batch(inputs, inputs.clone())

    def describe(self) -> str:
        """Return one line for people: origin, sizes and fingerprint."""
        return f"reconstruction of {super().describe()}"

    def evaluation_batches(self) -> Iterator[Batch]:
        """Yield the held-out bytes once, in windows that do not overlap; the last has what is left."""
        held_out = self.held_out()
        n_windows, rest = divmod(len(held_out), self.seq_len)
        windows = held_out[: len(held_out) - rest].reshape(n_windows, self.seq_len)
        for first in range(0, n_windows, self.batch_size):
            yield _own_targets(windows[first : first + self.batch_size])
        if rest:
            yield _own_targets(held_out[-rest:].reshape(1, rest))


def _own_targets(windows: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Batch:
    inputs = torch.from_numpy(windows.astype(np.int64))
    return Batch(inputs, inputs.clone())
