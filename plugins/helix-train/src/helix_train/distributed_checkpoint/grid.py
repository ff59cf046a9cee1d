"""The regular grid that is fine enough for every rank's piece of an array to be whole cells of it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

    from helix_kernel.checkpoint.layout import Layout, Shard

MAX_SHARDS = 2**16
"""Pieces whose lengths have no useful divisor in common would make a manifest of nothing but entries."""


def grid_of(name: str, shape: Sequence[int], pieces: Sequence[ChunkStorageMetadata]) -> tuple[int, ...]:
    """Return the shape of the grid's cells, those at the edges left out.

    Pieces of FSDP and of tensor parallelism are cells themselves. Where the lengths of pieces differ
    inside of an array, cells are as long as the greatest common divisor of the places of the cuts.

    Args:
        name: The tensor's name, for errors.
        shape: The tensor's shape.
        pieces: What the ranks hold of it, without those of no elements.

    Raises:
        ArgumentError: The pieces do not make up the tensor, or the grid would be too fine.
    """
    held = sum(math.prod(piece.sizes) for piece in pieces)
    if held != math.prod(shape):
        raise ArgumentError(
            f"state {name!r} has {math.prod(shape)} elements, of which the ranks that write hold {held}; "
            "every rank of its mesh must take part"
        )
    cell = tuple(_common_length(axis, length, pieces) for axis, length in enumerate(shape))
    n_cells = math.prod(-(-length // n) for length, n in zip(shape, cell, strict=True) if n)
    if n_cells > MAX_SHARDS:
        raise ArgumentError(
            f"state {name!r} is cut so unevenly that it would be stored in {n_cells} shards, allowed are "
            f"{MAX_SHARDS}; redistribute it before it is saved"
        )
    return cell


def cells(layout: Layout, piece: ChunkStorageMetadata) -> list[Shard]:
    """Return the shards of a layout that a piece consists of."""
    spans = [range(low, low + n) for low, n in zip(piece.offsets, piece.sizes, strict=True)]
    return [
        shard
        for shard in layout.shards
        if all(low in span for low, span in zip(shard.origin, spans, strict=True))
    ]


def _common_length(axis: int, length: int, pieces: Sequence[ChunkStorageMetadata]) -> int:
    cuts = {piece.offsets[axis] for piece in pieces}
    cuts |= {piece.offsets[axis] + piece.sizes[axis] for piece in pieces}
    return math.gcd(*(cuts - {0, length})) or length
