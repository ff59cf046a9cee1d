"""Checks of constructors' arguments that several layers share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helix_kernel.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence


def check_choice(layer: str, name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `ArgumentError` where an argument of a layer's constructor is none of the allowed names."""
    if value not in allowed:
        raise ArgumentError(
            f"{layer}: {name} is {value!r}, allowed are {', '.join(map(repr, allowed))}."
            f"{did_you_mean(value, allowed)}"
        )


def check_dt_range(layer: str, dt_min: float, dt_max: float) -> None:
    """Raise `ArgumentError` unless 0 < dt_min <= dt_max."""
    if not 0 < dt_min <= dt_max:
        raise ArgumentError(
            f"{layer}: dt_min is {dt_min!r} and dt_max {dt_max!r}, allowed is 0 < dt_min <= dt_max"
        )


def check_even(layer: str, name: str, value: int, why: str) -> None:
    """Raise `ArgumentError` where a size is odd; `why` follows "allowed is an even number"."""
    if value % 2:
        raise ArgumentError(f"{layer}: {name} is {value}, allowed is an even number{why}")
