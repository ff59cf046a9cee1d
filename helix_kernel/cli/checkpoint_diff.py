"""The command `checkpoint diff`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.difference import ABSENT, difference
from helix_kernel.cli.checkpoint_path import open_checkpoint
from helix_kernel.cli.output import clipped, print_json, print_table, strict_json, told_apart

if TYPE_CHECKING:
    from helix_kernel.checkpoint.difference import Difference

_VALUES = {
    "config": "config",
    "components": "component",
    "attributes": "attribute",
    "values": "value",
    "forms": "array of another form",
    "ties": "array tied otherwise",
}


def diff(first: str, second: str, *, json: bool = False) -> int:
    """Show what two checkpoints differ in: config, components, arrays, and how far these moved.

    Arrays of which both have the same digest are not read.

    Args:
        first: A checkpoint, or a run's directory, which means its newest good checkpoint.
        second: Another.
        json: Print one JSON object.

    Returns:
        0, or 1 where they differ.
    """
    with open_checkpoint(first) as a, open_checkpoint(second) as b:
        found = difference(a, b)
        if json:
            print_json({"first": str(a.path), "second": str(b.path), **_document(found)})
        else:
            _print(str(a.path), str(b.path), found)
    return 1 if found else 0


def _document(found: Difference) -> dict[str, Any]:
    pairs = {
        name: {
            key: [None if value is ABSENT else strict_json(value) for value in pair]
            for key, pair in getattr(found, name).items()
        }
        for name in _VALUES
    }
    return {
        "equal": not found,
        **pairs,
        "only_first": found.only_first,
        "only_second": found.only_second,
        "changes": strict_json([attrs.asdict(change) for change in found.changes]),
    }


def _print(first: str, second: str, found: Difference) -> None:
    print(f"first   {first}\nsecond  {second}")
    if not found:
        print("They hold the same.")
    for name, title in _VALUES.items():
        rows = [(key, *map(_shown, told_apart(*pair))) for key, pair in getattr(found, name).items()]
        if rows:
            print()
            print_table((title, "first", "second"), rows)
    for title, names in (("first", found.only_first), ("second", found.only_second)):
        if names:
            print()
            print_table((f"array that only the {title} has",), [(name,) for name in names])
    if found.changes:
        print()
        rows = [
            (
                c.name,
                *(f"{n:.4g}" for n in (c.norm, c.relative, c.largest)),
                f"{c.n_changed} of {c.n_elements}",
            )
            for c in found.changes
        ]
        print_table(("array that changed", "norm", "relative", "largest", "elements"), rows)


def _shown(value: Any) -> str:
    return "-" if value is ABSENT else clipped(value)
