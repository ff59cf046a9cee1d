"""The commands `checkpoint export` and `checkpoint convert`: to and from other forms."""

from __future__ import annotations

from typing import Literal

from helix_kernel.checkpoint import Checkpoint
from helix_kernel.cli.checkpoint_path import open_checkpoint
from helix_kernel.cli.output import print_json, readable_size


def export(
    path: str,
    out: str,
    *,
    format: Literal["safetensors", "zarr", "zip"] | None = None,  # noqa: A002 - the option's name
    only: str | None = None,
    json: bool = False,
) -> None:
    """Write a checkpoint in a form that other tools read, checking it on the way.

    Args:
        path: A checkpoint, or a run's directory, which means its newest good checkpoint.
        out: The file or directory to make; what exists is never written over.
        format: safetensors; zarr, a directory with one file a key; or zip, the same in one file. If left
            out, what `out` ends in: .safetensors, .zarr or .zip.
        only: Path such as model: only what lies there, named from there on, as a torch module has it.
        json: Print one JSON object.
    """
    from helix_kernel.checkpoint.export import export as export_checkpoint

    with open_checkpoint(path) as checkpoint:
        found = export_checkpoint(checkpoint, out, form=format, only=only)
        source = str(checkpoint.path)
    if json:
        written = {
            "path": str(found.path),
            "format": found.form,
            "arrays": found.n_arrays,
            "bytes": found.nbytes,
        }
        print_json({"source": source, **written, "ties": found.ties})
        return
    print(f"{found.path}: {found.n_arrays} arrays, {readable_size(found.nbytes)}, as {found.form}")
    for tied, stored in found.ties.items():
        print(f"  {tied} is {stored}, and stored once")


def convert(
    source: str, out: str, *, compression: Literal["bitshuffle-lz4"] | None = None, json: bool = False
) -> None:
    """Write a checkpoint of the present form from an older one, a safetensors file or a Zarr hierarchy.

    Args:
        source: What to read; it stays as it is.
        out: The checkpoint's directory to make.
        compression: Compress the arrays that shrink by it; what was compressed before is not, if left out.
        json: Print one JSON object.
    """
    from helix_kernel.checkpoint.convert import convert as convert_source

    form = convert_source(source, out, compression=compression).form
    with Checkpoint.open(out) as checkpoint:
        n_arrays = len(checkpoint.arrays)
        nbytes = sum(array.nbytes for array in checkpoint.arrays.values())
    if json:
        print_json({"source": source, "form": form, "path": out, "arrays": n_arrays, "bytes": nbytes})
    else:
        print(f"{out}: {n_arrays} arrays, {readable_size(nbytes)}, from a {form}")
