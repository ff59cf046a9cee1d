"""A model and a dataset that train in milliseconds, as a plugin that is never installed: for rehearsals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np
import torch
from torch import nn

import helix_kernel
from helix_kernel import Component, Kind

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

VOCAB_SIZE = 7
_D_MODEL, _SEQ_LEN, _BATCH_SIZE, _HELD_OUT = 4, 6, 4, 24


class TinyModel(nn.Module):
    """Sums of embeddings, with what a model may have: dropout, a buffer that counts, and one of floats."""

    seen: Tensor
    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB_SIZE, _D_MODEL)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(_D_MODEL, VOCAB_SIZE)
        self.register_buffer("seen", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(_D_MODEL))

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits (B, L, V) of ids (B, L)."""
        sums = self.embedding(ids).cumsum(dim=1)
        if self.training:
            self.seen += 1
            self.mean.lerp_(sums.detach().mean(dim=(0, 1)), 0.1)
        logits: Tensor = self.head(self.dropout(torch.tanh(sums - self.mean)))
        return logits


@attrs.frozen
class TinyBatch:
    """Ids (B, L), and those that follow them."""

    inputs: Tensor
    targets: Tensor


class TinyData:
    """Random ids, each row a function of the seed and its number."""

    seq_len = _SEQ_LEN
    batch_size = _BATCH_SIZE
    draws = False
    fingerprint = "tiny"

    def describe(self) -> str:
        """Return what is trained on, in a line."""
        return f"tiny data: {VOCAB_SIZE} ids at random"

    def held_out(self) -> NDArray[np.integer]:
        """Return the ids that are measured on."""
        return np.random.default_rng(0).integers(0, VOCAB_SIZE, _HELD_OUT)

    def batch(self, *, seed: int, step: int, rank: int = 0, world_size: int = 1) -> TinyBatch:
        """Return the batch of a step."""
        first = (step * world_size + rank) * self.batch_size
        rows = [_row(seed, first + number) for number in range(self.batch_size)]
        ids = torch.from_numpy(np.stack(rows))
        return TinyBatch(ids[:, :-1], ids[:, 1:])


@helix_kernel.hookimpl
def helix_kinds() -> list[Kind]:
    """Bring the kind of which the dataset is: helix-data, which brings it otherwise, takes no part."""
    return [Kind(name="dataset", plural="datasets", section="data")]


@helix_kernel.hookimpl
def helix_layers() -> list[Component]:
    """Return the model."""
    return [Component(name="tiny", target=f"{__name__}:TinyModel")]


@helix_kernel.hookimpl
def helix_datasets() -> list[Component]:
    """Return the dataset."""
    return [Component(name="tiny", target=f"{__name__}:TinyData")]


def _row(seed: int, number: int) -> NDArray[np.integer]:
    # More of the first ids than of the others: there is something to learn.
    drawn = np.random.default_rng([seed, number]).random(_SEQ_LEN + 1)
    return (VOCAB_SIZE * drawn**2).astype(np.int64)
