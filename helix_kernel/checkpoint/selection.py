"""Which paths of a checkpoint are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Selection:
    """The paths that `only` asks for.

    Args:
        only: One path, several, or None for all.
    """

    def __init__(self, only: str | Iterable[str] | None) -> None:
        self._paths = None if only is None else [only] if isinstance(only, str) else list(only)
        self._matched: set[str] = set()

    def __call__(self, path: str) -> bool:
        """Whether a path lies at or below one that is asked for."""
        if self._paths is None:
            return True
        matches = [asked for asked in self._paths if f"{path}/".startswith(f"{asked.rstrip('/')}/")]
        self._matched.update(matches)
        return bool(matches)

    def unmatched(self) -> list[str]:
        """Return what was asked for but never met."""
        return [path for path in self._paths or () if path not in self._matched]
