"""The dataset `augmented`: another one, the inputs of whose training batches are augmented."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    from acme_augment.augmentation import Augmentation


class AugmentedBatch(NamedTuple):
    """Changed inputs, and what they are to predict.

    Attributes:
        inputs: (B, L) int64.
        targets: (B, L) int64, as the dataset has them.
    """

    inputs: torch.Tensor
    targets: torch.Tensor


class Augmented:
    """Gives the batches of a dataset of bytes, their inputs augmented; what it holds out stays as it is.

    The seed of an augmentation follows from the place of its batch alone, so that a resumed run draws what
    an uninterrupted one does, and any number of ranks the same.

    Args:
        data: The dataset.
        augmentation: Changes its inputs.
    """

    draws = False

    def __init__(self, *, data: Any, augmentation: Augmentation) -> None:
        self._data = data
        self._augmentation = augmentation
        self.vocab_size: int = data.vocab_size
        self.seq_len: int = data.seq_len
        self.batch_size: int = data.batch_size

    @property
    def fingerprint(self) -> str:
        """That of the dataset: the text is the same."""
        return str(self._data.fingerprint)

    def describe(self) -> str:
        """Return one line for people."""
        return f"{self._data.describe()}; inputs changed by {type(self._augmentation).__name__}"

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> AugmentedBatch:
        """Return a rank's share of the training batch of a step, (batch_size, seq_len) each."""
        found = self._data.batch(seed=seed, step=step, rank=rank, world_size=world_size)
        place = f"{seed} {step * world_size + rank}".encode()
        own = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 1
        return AugmentedBatch(self._augmentation(found.inputs, seed=own), found.targets)

    def held_out(self) -> Any:
        """Return what the dataset holds out."""
        return self._data.held_out()
