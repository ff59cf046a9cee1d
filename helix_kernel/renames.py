"""Tells users, once for each, of the old names that they still use."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_told: ContextVar[dict[str, None] | None] = ContextVar("told", default=None)
"""What is to be told when the outermost `told_once` ends, in order; None outside of one."""


def tell(message: str) -> None:
    """Warn of an old name, at once or when the `told_once` around the call ends."""
    told = _told.get()
    if told is None:
        _warn(message)
    else:
        told[message] = None


@contextmanager
def told_once() -> Iterator[None]:
    """Warn of each old name that the block meets once, when the outermost such block ends."""
    if _told.get() is not None:
        yield
        return
    with _gathered() as told:
        yield
    for message in told:
        _warn(message)


@contextmanager
def untold() -> Iterator[None]:
    """Warn of no old name within the block, as where a checkpoint uses it, which nobody edits."""
    with _gathered():
        yield


@contextmanager
def _gathered() -> Iterator[dict[str, None]]:
    told: dict[str, None] = {}
    token = _told.set(told)
    try:
        yield told
    finally:
        _told.reset(token)


def _warn(message: str) -> None:
    # Python shows users this category, as it does no DeprecationWarning.
    warnings.warn(message, FutureWarning, stacklevel=4)
