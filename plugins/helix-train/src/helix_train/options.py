"""The options of configs by dotted path, and what several configs differ in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint.difference import ABSENT, COMPONENTS_IN_CONFIG, leaves

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ABOUT_THE_RUN = ("trainer.out", "trainer.resume")
"""Options that differ between any two runs, and say nothing of what was tried."""


def options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a frozen config by their paths, without the versions that it repeats."""
    return {path: value for path, value in leaves(dict(config)) if not path.startswith(COMPONENTS_IN_CONFIG)}


def differing(tables: Sequence[Mapping[str, Any]], *, but: Sequence[str] = ()) -> dict[str, tuple[Any, ...]]:
    """Return by path the values, `ABSENT` among them, of what is not the same in all tables.

    Args:
        tables: Options by path, or other values by name.
        but: Paths that are left out.
    """
    paths = dict.fromkeys(path for table in tables for path in table if path not in but)
    rows = {path: tuple(table.get(path, ABSENT) for table in tables) for path in paths}
    # By what they look like: a NaN is like any other, and 1 is not True.
    return {path: row for path, row in rows.items() if len({repr(value) for value in row}) > 1}


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Return for each path the fewest of its last words that no other of the paths ends in."""
    return {path: _short_name(path, [other for other in paths if other != path]) for path in paths}


def shown(value: Any) -> str:
    """Return a value as a table shows it."""
    return "-" if value is ABSENT else str(value).lower() if isinstance(value, bool) else str(value)


def _short_name(path: str, others: Sequence[str]) -> str:
    words = path.split(".")
    for n_words in range(1, len(words)):
        name = ".".join(words[-n_words:])
        if not any(f".{other}".endswith(f".{name}") for other in others):
            return name
    return path
