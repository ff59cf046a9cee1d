"""What `import` and `export` share: the formats that they know, and how they print what they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.cli.output import print_json, print_table
from helix_kernel.errors import ArgumentError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = ("hf",)


def check_format(name: str) -> None:
    """Raise `ArgumentError` unless there is such a format."""
    if name not in FORMATS:
        raise ArgumentError(
            f"format is {name!r}, allowed is {', '.join(FORMATS)} (folders of transformers)."
            f"{did_you_mean(name, FORMATS)}"
        )


def show(results: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a command did, as one JSON object or a line for each result."""
    if as_json:
        print_json(dict(results))
        return
    rows = [
        (name.replace("_", " "), _text(value)) for name, value in results.items() if value not in (None, ())
    ]
    print_table(("what", "result"), rows)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
