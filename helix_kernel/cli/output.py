"""Prints for people: tables with rich on a terminal, plain columns in a pipe."""

from __future__ import annotations

import json
import sys

TYPE_CHECKING = False  # see helix_kernel.cli
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

INFINITY = float("inf")


def print_json(value: Any) -> None:
    """Print one JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Print rows under their columns' names."""
    if sys.stdout.isatty():
        _print_rich(columns, rows, title)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [title] if title else []
    for row in (columns, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n")


def readable_size(nbytes: int) -> str:
    """Return a number of bytes for people."""
    amount = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def clipped(value: object) -> str:
    """Return a value as text that fits into a table."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def told_apart(*values: Any) -> list[Any]:
    """Return values with numbers as text, rounded to 6 digits, or as many as show that two differ."""
    numbers = {str(value) for value in values if isinstance(value, float)}
    for digits in range(6, 18):
        texts = {number: _rounded(number, digits) for number in numbers}
        if len(set(texts.values())) == len(numbers):
            break
    return [texts[str(value)] if isinstance(value, float) else value for value in values]


def strict_json(value: Any) -> Any:
    """Return a value that JSON has: what is no finite number becomes text, as in Zarr's metadata."""
    if isinstance(value, float) and (value != value or value in (INFINITY, -INFINITY)):  # noqa: PLR0124 - NaN
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - NaN
    if isinstance(value, dict):
        return {str(key): strict_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [strict_json(item) for item in value]
    return value


def _rounded(number: str, digits: int) -> str:
    text = f"{float(number):.{digits}g}"
    return number if float(text) == float(number) else text


def _print_rich(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*columns, title=title or None, box=SIMPLE_HEAD, title_justify="left")
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console().print(table)
