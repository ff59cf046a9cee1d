"""Batches of every kind of data, made of a seed, for the suites of encoders and decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from helix_multimodal.inputs import Padded, Tokens, pad

if TYPE_CHECKING:
    from torch import Tensor

_SHAPES: dict[str, list[tuple[int, ...] | None]] = {
    "text": [(13,), (1,), None, (6,)],
    "image": [(3, 9, 14), (1, 5, 3), None, (4, 8, 8), (2, 3, 11)],
    "audio": [(1, 700), (2, 401), None, (1, 3)],
    "video": [(5, 3, 9, 6), (1, 3, 4, 13), None, (2, 3, 8, 8)],
    "point-cloud": [(19, 3), (2, 3), None, (8, 3)],
}


def batch_of(modality: str | None, *, seed: int = 0) -> Padded:
    """Return samples of different sizes, one of them missing; those of text where the modality is None.

    Each sample is drawn by itself, so that it is the same in whatever batch.
    """
    shapes = _SHAPES[modality or "text"]
    samples = [
        None if shape is None else _sample(modality or "text", shape, 100 * seed + row)
        for row, shape in enumerate(shapes)
    ]
    return pad(samples)


def alike_batch(modality: str | None, *, seed: int = 0) -> Padded:
    """Return two samples of one size and the first's kind, smooth enough to be learnt quickly."""
    shape = _SHAPES[modality or "text"][0]
    assert shape is not None
    return pad([_smooth(modality or "text", shape, seed + row) for row in range(2)])


def other_batch(modality: str) -> Padded:
    """Return a batch of another modality than this."""
    return batch_of("video" if modality == "text" else "text")


def row_of(batch: Padded, row: int) -> Padded:
    """Return one row of a batch, padded no more than alone."""
    sizes = batch.sizes[row].tolist()
    own = tuple(slice(max(1, size)) for size in sizes)
    return Padded(batch.values[row][own].unsqueeze(0), batch.sizes[row : row + 1])


def beyond(batch: Padded, *, amount: int = 3) -> Padded:
    """Return the batch with more padding, and NaN, or the highest number, wherever a sample has nothing."""
    longer = [length + amount for length in batch.values.shape[1:]]
    floating = batch.values.is_floating_point()
    filler = float("nan") if floating else torch.iinfo(batch.values.dtype).max
    values = batch.values.new_full((len(batch.values), *longer), filler)
    for row, sizes in enumerate(batch.sizes.tolist()):
        own = tuple(slice(size) for size in sizes)
        values[row][own] = batch.values[row][own]
    return Padded(values, batch.sizes)


def _sample(modality: str, shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if modality in ("audio", "point-cloud"):
        return torch.rand(shape, generator=generator) * 2 - 1
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def _smooth(modality: str, shape: tuple[int, ...], seed: int) -> Tensor:
    """Return waves along the last axis, of a frequency and phase by the seed."""
    if modality in ("point-cloud", "text"):
        return _sample(modality, shape, seed)
    places = torch.arange(shape[-1]) / 8
    wave = (places * (1 + seed) + seed).sin().expand(shape)
    return wave * 0.8 if modality == "audio" else ((wave + 1) * 127).to(torch.uint8)


def tokens_for(
    batch: Padded, d_model: int, *, dtype: torch.dtype = torch.float64, missing: bool = True
) -> Tokens:
    """Return tokens of which each sample has some and a missing one none.

    Args:
        batch: Tells how many rows there are, and which.
        d_model: Width of the tokens.
        dtype: Of the tokens.
        missing: Whether rows have different numbers of tokens, hidden ones among them.
    """
    generator = torch.Generator().manual_seed(7)
    shape = (len(batch.values), 4)
    values = torch.randn(*shape, d_model, generator=generator, dtype=torch.float64)
    mask = torch.ones(shape, dtype=torch.bool)
    if missing:
        mask = torch.rand(shape, generator=generator) < 0.7
        mask[:, 2] = True
    return Tokens(values.to(dtype if missing else torch.float32), mask & batch.present[:, None])
