"""Holds PyTorch to algorithms that give the same bits each time."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def deterministic_algorithms(*, enabled: bool) -> Iterator[None]:
    """Let PyTorch refuse, within the block, every operation that has no deterministic algorithm.

    Covered: PyTorch's own operations, cuDNN's choice of algorithms and cuBLAS's workspace. Not covered:
    another number of threads or of ranks, another device, another version of PyTorch or of a backend, what a
    custom op does by atomics of its own, and anything that reads the clock.
    """
    if not enabled:
        yield
        return
    # cuBLAS reads it when its first handle is made.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark
