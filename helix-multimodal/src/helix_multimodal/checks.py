"""Checks of arguments that the parts of this distribution share."""

from __future__ import annotations

from helix_kernel.errors import ArgumentError


def check_at_least(name: str, low: int = 1, **sizes: int) -> None:
    """Check that sizes are no less than the least.

    Raises:
        ArgumentError: One is; the message says of which component (`name`) and option.
    """
    for option, size in sizes.items():
        if size < low:
            raise ArgumentError(f"{name}: {option} is {size}, allowed is >= {low}")
