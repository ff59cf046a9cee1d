"""A config as one level of names and plain values, as the tables of other systems have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def flat_config(value: Any, name: str = "") -> dict[str, bool | int | float | str]:
    """Return what a config sets, by dotted name; of a list, each element by its number.

    What is not set is left out, and so are empty tables and lists.

    Args:
        value: The config, or a part of it.
        name: Where it stands.
    """
    if isinstance(value, Mapping):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = {str(index): item for index, item in enumerate(value)}.items()
    elif value is None:
        return {}
    else:
        return {name: value if isinstance(value, bool | int | float | str) else str(value)}
    found: dict[str, bool | int | float | str] = {}
    for key, part in parts:
        found |= flat_config(part, f"{name}.{key}" if name else str(key))
    return found
