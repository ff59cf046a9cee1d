"""What goes between files and models: samples of many sizes as one tensor, and tokens, each with a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Padded(NamedTuple):
    """Tensors of B samples of one kind of data, filled up with zeros to one size.

    Attributes:
        values: (B, …), of the dtype that the modality encodes to.
        sizes: (B, number of further axes) int64: how much of each axis is the sample's own. A sample that is
            missing has zeros throughout: it is masked, and no blank picture or silence.
    """

    values: Tensor
    sizes: Tensor

    @property
    def present(self) -> Tensor:
        """Which samples there are, bool (B,)."""
        return (self.sizes > 0).all(-1)

    def within(self, axis: int) -> Tensor:
        """Return which places along an axis (0 is the one after B) are a sample's own, bool (B, length)."""
        places = torch.arange(self.values.shape[axis + 1], device=self.values.device)
        return (places < self.sizes[:, axis, None]) & self.present[:, None]

    def to(self, device: torch.device | str) -> Padded:
        """Return both tensors on a device."""
        return Padded(self.values.to(device), self.sizes.to(device))


class Tokens(NamedTuple):
    """What an encoder makes of a batch.

    Attributes:
        values: (B, N, D) floating; what the mask hides holds any finite numbers.
        mask: (B, N) bool: which tokens there are. A row without any is of a sample that is missing.
    """

    values: Tensor
    mask: Tensor

    @property
    def present(self) -> Tensor:
        """Which rows have any token, bool (B,)."""
        return self.mask.any(-1)


def pad(samples: Sequence[Tensor | None], like: Tensor | None = None) -> Padded:
    """Return samples as one tensor.

    Args:
        samples: Tensors of one dtype and number of axes; None for one that is missing.
        like: Tells the dtype and the number of axes where all may be missing.

    Raises:
        ArgumentError: Nothing tells the dtype, or two samples differ in it or in their number of axes.
    """
    given = [sample for sample in samples if sample is not None]
    if not given and like is None:
        raise ArgumentError("samples are all None and like is None, so that nothing tells the dtype and axes")
    first = given[0] if given else like
    assert first is not None
    for sample in given:
        if sample.dtype != first.dtype or sample.dim() != first.dim():
            raise ArgumentError(
                f"samples: one is {tuple(sample.shape)} of {sample.dtype}, another {tuple(first.shape)} of "
                f"{first.dtype}; allowed is one dtype and one number of axes"
            )
    sizes = torch.zeros(len(samples), first.dim(), dtype=torch.int64)
    rows = [(row, sample) for row, sample in enumerate(samples) if sample is not None]
    for row, sample in rows:
        sizes[row] = torch.tensor(sample.shape)
    longest = [max(1, *column) for column in zip(*sizes.tolist(), strict=True)]
    values = first.new_zeros(len(samples), *longest)
    for row, sample in rows:
        values[row][tuple(slice(size) for size in sample.shape)] = sample
    return Padded(values, sizes)


def join(parts: Sequence[Tokens]) -> Tokens:
    """Return the tokens of several parts of the same rows, one part after the other."""
    return Tokens(torch.cat([part.values for part in parts], 1), torch.cat([part.mask for part in parts], 1))


def pool(tokens: Tokens) -> Tensor:
    """Return the mean of each row's tokens, (B, D); zeros for a row that has none."""
    weights = tokens.mask.unsqueeze(-1).to(tokens.values.dtype)
    return (tokens.values * weights).sum(1) / weights.sum(1).clamp(min=1)
