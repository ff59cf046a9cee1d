"""Where a batch stands in the endless shuffled sequence of examples that ranks share."""

from __future__ import annotations

from helix_data.config import check_at_least
from helix_kernel.errors import ArgumentError


def first_of_batch(*, step: int, rank: int, world_size: int, batch_size: int) -> int:
    """Return the number of the first example of a rank's share of a step's batch.

    Raises:
        ArgumentError: An argument is out of range.
    """
    check_at_least("step", step, 0)
    check_at_least("world_size", world_size, 1)
    if not 0 <= rank < world_size:
        raise ArgumentError(f"rank is {rank!r}, allowed is >= 0 and < world_size={world_size}")
    return (step * world_size + rank) * batch_size


def check_seed(seed: int) -> None:
    """Raise `ArgumentError` unless a seed fits 64 bits."""
    if not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed is {seed!r}, allowed is >= 0 and < 2**64")
