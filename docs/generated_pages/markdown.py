"""Pieces of Markdown that generated pages are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; bars inside cells are escaped."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def code(text: object) -> str:
    """Return a text set as code, or nothing for no text; one that holds backticks gets longer fences."""
    words = str(text)
    if not words:
        return ""
    return f"`{words}`" if "`" not in words else f"`` {words} ``"


def anchor(*words: str) -> str:
    """Return the name by which pages link to a heading, such as ``layer-mamba``."""
    return "-".join(words).replace("_", "-").replace(":", "-").lower()
