"""The command `checkpoint inspect`. It imports no torch and no zarr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint import Checkpoint
from helix_kernel.checkpoint import resolve as resolve_checkpoint
from helix_kernel.checkpoint.difference import COMPONENTS_IN_CONFIG, leaves
from helix_kernel.cli.output import clipped, print_json, print_table, readable_size, strict_json
from helix_kernel.listing import listing
from helix_kernel.needs import needs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.needs import Need


def inspect(path: str, *, json: bool = False) -> None:
    """Show what a checkpoint holds and needs, after checking every byte of it.

    Args:
        path: A checkpoint, or a run's directory, which means its newest good checkpoint.
        json: Print one JSON object, with the SHA-256 of each array's bytes.
    """
    with Checkpoint.open(resolve_checkpoint(path)) as checkpoint:
        needed = needs(checkpoint.attributes, listing())
        if json:
            print_json(_document(checkpoint, needed))
        else:
            _print(checkpoint, needed)


def _document(checkpoint: Checkpoint, needed: list[Need]) -> dict[str, Any]:
    arrays = [
        {
            "name": array.name,
            "shape": list(array.shape),
            "dtype": array.dtype,
            "bytes": array.nbytes,
            "stored_bytes": array.stored_bytes,
            "compression": array.compression,
            "digest": array.digest,
            "sha256": checkpoint.sha256(array.name),
        }
        for _, array in sorted(checkpoint.arrays.items())
    ]
    return {
        "path": str(checkpoint.path),
        "attributes": strict_json(checkpoint.attributes),
        "needs": [{**attrs.asdict(need), "command": need.command} for need in needed],
        "arrays": arrays,
        "ties": checkpoint.ties,
    }


def _print(checkpoint: Checkpoint, needed: list[Need]) -> None:
    print(f"{checkpoint.path}: {len(checkpoint.arrays)} arrays, {_sizes(checkpoint)}")
    attributes = dict(checkpoint.attributes)
    if "step" in attributes:
        print(f"step {attributes.pop('step')}")
    for told_above in ("components", "lock"):  # --json gives the digests of the source, too
        attributes.pop(told_above, None)
    config = attributes.pop("config", {})
    if needed:
        print()
        rows = [(need.name, need.saved, need.installed or "-", _remark(need)) for need in needed]
        print_table(("component", "saved with", "installed", ""), rows)
    for title, values in (("config", config), ("attribute", attributes)):
        lines = [(path, clipped(value)) for path, value in leaves(values)]
        if lines := [line for line in lines if not line[0].startswith(COMPONENTS_IN_CONFIG)]:
            print()
            print_table((title, "value"), lines)
    if checkpoint.arrays:
        print()
        columns = ("array", "shape", "dtype", "size", "stored")[: 5 if _is_compressed(checkpoint) else 4]
        print_table(columns, [row[: len(columns)] for row in _tree(checkpoint)])


def _is_compressed(checkpoint: Checkpoint) -> bool:
    return any(array.compression for array in checkpoint.arrays.values())


def _sizes(checkpoint: Checkpoint) -> str:
    """Return the size of all arrays, and where some are compressed, how much is stored of them."""
    arrays = checkpoint.arrays.values()
    size = readable_size(sum(array.nbytes for array in arrays))
    if not _is_compressed(checkpoint):
        return size
    return f"{size}, stored in {readable_size(sum(array.stored_bytes for array in arrays))}"


def _remark(need: Need) -> str:
    if need.state in ("ok", "read"):
        return "" if need.state == "ok" else f"read by {need.installed}"
    what = {"version": "another version", "missing": "missing", "broken": "broken"}[need.state]
    return f"{what}: {need.command or need.detail}"


def _tree(checkpoint: Checkpoint) -> Iterator[tuple[str, ...]]:
    """Yield a row for each group and array, indented by its depth."""
    shown: tuple[str, ...] = ()
    for name in sorted([*checkpoint.arrays, *checkpoint.ties], key=lambda name: name.split("/")):
        *groups, leaf = name.split("/")
        for depth in range(len(groups)):
            if tuple(groups[: depth + 1]) != shown[: depth + 1]:
                yield f"{'  ' * depth}{groups[depth]}/", "", "", "", ""
        shown = tuple(groups)
        label = f"{'  ' * len(groups)}{leaf}"
        if name in checkpoint.ties:
            yield label, "", "", f"is {checkpoint.ties[name]}", ""
        else:
            array = checkpoint.arrays[name]
            how = f"{readable_size(array.stored_bytes)}  {array.compression}" if array.compression else ""
            yield label, str(array.shape), array.dtype, readable_size(array.nbytes), how
