"""States of nested plain data: copied, compared to the bit, and sent through a file."""

from __future__ import annotations

import io
from typing import Any

from helix_kernel.testing.pytree import leaves, map_leaves


def copied(state: Any) -> Any:
    """Return a state that shares no tensor with the given one."""
    return map_leaves(lambda leaf: leaf.clone() if hasattr(leaf, "clone") else leaf, state)


def same(first: Any, second: Any) -> bool:
    """Whether two states hold the same to the bit, NaN beside NaN."""
    left, right = list(leaves(first)), list(leaves(second))
    return len(left) == len(right) and all(map(_same_leaf, left, right))


def through_a_file(state: Any) -> Any:
    """Return a state as it comes back from a file that may hold plain data only, as checkpoints do.

    Raises:
        pickle.UnpicklingError: It holds an object of another class.
    """
    import torch

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def _same_leaf(first: Any, second: Any) -> bool:
    if hasattr(first, "shape") and hasattr(second, "shape"):
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        return bool(((first == second) | ((first != first) & (second != second))).all())  # noqa: PLR0124 - NaN
    return bool(first == second or (first != first and second != second))  # noqa: PLR0124 - NaN
