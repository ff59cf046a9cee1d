"""The command `checkpoint inspect`. It imports no torch and reads no more than digests need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.checkpoint import Checkpoint
from helix_kernel.checkpoint import resolve as resolve_checkpoint
from helix_kernel.cli.output import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator


def inspect(path: str, *, json: bool = False) -> None:
    """Show what a checkpoint holds, after checking every file of it.

    Args:
        path: A checkpoint, or a run's directory, which means its newest good checkpoint.
        json: Print one JSON object.
    """
    checkpoint = Checkpoint.open(resolve_checkpoint(path))
    if json:
        print_json(_document(checkpoint))
        return
    size = sum(array.nbytes for array in checkpoint.arrays.values())
    print(f"{checkpoint.path}: {len(checkpoint.arrays)} arrays, {_readable(size)}")
    if "step" in checkpoint.attributes:
        print(f"step {checkpoint.attributes['step']}")
    components = checkpoint.attributes.get("components")
    if isinstance(components, dict) and components:
        print()
        print_table(("component", "version"), [(str(k), str(v)) for k, v in sorted(components.items())])
    if checkpoint.arrays:
        print()
        print_table(("array", "shape", "dtype", "size"), list(_tree(checkpoint)))


def _document(checkpoint: Checkpoint) -> dict[str, Any]:
    arrays = [
        {
            "name": array.name,
            "shape": list(array.shape),
            "dtype": array.dtype,
            "sha256": checkpoint.sha256(array.name),
        }
        for _, array in sorted(checkpoint.arrays.items())
    ]
    return {
        "path": str(checkpoint.path),
        "attributes": checkpoint.attributes,
        "arrays": arrays,
        "ties": checkpoint.ties,
    }


def _tree(checkpoint: Checkpoint) -> Iterator[tuple[str, str, str, str]]:
    """Yield a row for each group and array, indented by its depth."""
    shown: tuple[str, ...] = ()
    for name in sorted([*checkpoint.arrays, *checkpoint.ties], key=lambda name: name.split("/")):
        *groups, leaf = name.split("/")
        for depth in range(len(groups)):
            if tuple(groups[: depth + 1]) != shown[: depth + 1]:
                yield f"{'  ' * depth}{groups[depth]}/", "", "", ""
        shown = tuple(groups)
        label = f"{'  ' * len(groups)}{leaf}"
        if name in checkpoint.ties:
            yield label, "", "", f"is {checkpoint.ties[name]}"
        else:
            array = checkpoint.arrays[name]
            yield label, str(array.shape), array.dtype, _readable(array.nbytes)


def _readable(size: int) -> str:
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
