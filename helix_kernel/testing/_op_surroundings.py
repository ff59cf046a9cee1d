"""What the suite of ops changes around a call: memory that is poisoned, and a number of threads."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def poisoned_memory() -> Iterator[None]:
    """Let PyTorch fill new memory with NaN, as its deterministic mode does."""
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        assert torch.empty(64).isnan().all(), (
            "PyTorch's fill_uninitialized_memory is off: nothing is poisoned"
        )
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
