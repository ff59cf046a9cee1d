"""A checkpoint in the forms that other tools read: a safetensors file, a Zarr directory, a Zarr zip file.

Every array is checked while it is copied. An export appears whole or not at all.
"""

from __future__ import annotations

import os
import struct
import zipfile
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import unquote

import attrs
import numpy as np

from helix_kernel.checkpoint import safetensors_file
from helix_kernel.checkpoint.blocks import blocks, shard_chunks
from helix_kernel.checkpoint.durable import new_directory, sync_descriptor
from helix_kernel.checkpoint.layout import Layout, to_text
from helix_kernel.checkpoint.manifest import FORMAT, VERSION, Manifest
from helix_kernel.checkpoint.new_file import new_file
from helix_kernel.checkpoint.pack import ALIGNMENT
from helix_kernel.errors import ArgumentError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helix_kernel.checkpoint.layout import Shard
    from helix_kernel.checkpoint.manifest import Extent
    from helix_kernel.checkpoint.reader import Checkpoint

Form = Literal["safetensors", "zarr", "zip"]
_ENDINGS: dict[str, Form] = {".safetensors": "safetensors", ".zarr": "zarr", ".zip": "zip"}
_SYNCS = 16
"""So many small files are brought to the disk at once: file systems then need few commits for all."""

_ZIP_HEADER, _ZIP64_FIELD = 30, 20
_PADDING_FIELD = 0xD935  # of zip's extra fields the one that Android's zipalign pads with


@attrs.frozen
class Exported:
    """What was exported.

    Args:
        path: The new file or directory.
        form: Which form it has.
        n_arrays: How many arrays it holds.
        nbytes: How many bytes their elements have.
        ties: Name of a tied array that the form stores once → the name under which it does.
    """

    path: Path
    form: Form
    n_arrays: int
    nbytes: int
    ties: dict[str, str]


def export(
    checkpoint: Checkpoint, out: str | Path, *, form: Form | None = None, only: str | None = None
) -> Exported:
    """Write a checkpoint in another form.

    Args:
        checkpoint: Open.
        out: The file or directory to make.
        form: ``safetensors``: one file, names joined by dots, attributes and state in its metadata.
            ``zarr``: a Zarr v3 directory, one file a key. ``zip``: the same in one file, stored, each
            entry's data at a multiple of 64 bytes. If left out, it is that of `out`'s ending.
        only: Path of a mapping or an array: only what lies there, named from there on.

    Raises:
        ArgumentError: `out`'s ending names no form, or the form has no such type of numbers.
        UnknownNameError: Nothing lies at `only`.
        CheckpointError: `out` exists, the checkpoint is damaged, or the system refuses a write.
    """
    out, chosen = Path(out), _Chosen.of(checkpoint, only)
    form = form or _form_of(out)
    if form not in get_args(Form):
        raise ArgumentError(f"format is {form!r}; allowed are {', '.join(get_args(Form))}")
    {"safetensors": _to_safetensors, "zarr": _to_directory, "zip": _to_zip}[form](checkpoint, chosen, out)
    infos = [checkpoint.arrays[stored] for stored in chosen.arrays.values()]
    return Exported(out, form, len(infos), sum(info.nbytes for info in infos), chosen.ties)


def dotted(path: str) -> str:
    """Return an array's path as torch names it: its keys joined by dots."""
    return ".".join(keys_of(path))


def keys_of(path: str) -> tuple[str, ...]:
    """Return the keys that an array's path was made of, parted at their dots."""
    return tuple("" if part == "%" else unquote(part) for part in path.split("/"))


@attrs.frozen
class _Chosen:
    """What is to be exported.

    Args:
        arrays: Name in the export → path in the checkpoint.
        ties: Name in the export of a tied array → that of the array.
        manifest: The checkpoint's, of these arrays under these names.
    """

    arrays: dict[str, str]
    ties: dict[str, str]
    manifest: Manifest

    @classmethod
    def of(cls, checkpoint: Checkpoint, only: str | None) -> _Chosen:
        root = (only or "").strip("/")
        known = {name: name for name in checkpoint.arrays} | checkpoint.ties
        arrays: dict[str, str] = {}
        ties: dict[str, str] = {}
        names: dict[str, str] = {}
        for path, stored in known.items():
            if f"{path}/".startswith(f"{root}/" if root else ""):
                name = path[len(root) :].strip("/") or path.rpartition("/")[2]
                if names.setdefault(stored, name) == name:
                    arrays[name] = stored
                else:
                    ties[name] = names[stored]
        if root and not arrays:
            groups = {path[:i] for path in known for i, letter in enumerate(path) if letter == "/"}
            raise UnknownNameError(
                f"{checkpoint.source} holds no array at {only!r}.{did_you_mean(root, [*groups, *known])}"
            )
        manifest = attrs.evolve(
            checkpoint.manifest,
            arrays={name: checkpoint.manifest.arrays[stored] for name, stored in arrays.items()},
            ties=ties,
            state=None if root else checkpoint.manifest.state,
        )
        return cls(arrays, ties, manifest)


def _form_of(out: Path) -> Form:
    if out.suffix not in _ENDINGS:
        raise ArgumentError(
            f"{str(out)!r} does not say its form: let it end in one of {', '.join(_ENDINGS)}, or give "
            f"--format {' or '.join(get_args(Form))}"
        )
    return _ENDINGS[out.suffix]


def _to_safetensors(checkpoint: Checkpoint, chosen: _Chosen, out: Path) -> None:
    infos = {name: checkpoint.arrays[stored] for name, stored in chosen.arrays.items()}
    safetensors_file.check_types({name: info.dtype for name, info in infos.items()})
    tensors = {
        dotted(name): safetensors_file.Tensor(info.dtype, info.shape, blocks(checkpoint, chosen.arrays[name]))
        for name, info in infos.items()
    }
    described = {
        "format": FORMAT,
        "version": VERSION,
        "attributes": chosen.manifest.attributes,
        "paths": {dotted(name): name for name in infos},
        "digests": {
            name: array.digest
            for name, array in chosen.manifest.arrays.items()
            if array.layout.compressed(None) == Layout.of(array.layout.shape, array.layout.dtype)
        },  # others are of a layout that is not kept here
        "ties": chosen.ties,
        "state": chosen.manifest.state,
    }
    with new_file(out) as file:
        # Hugging Face's readers ask for "format": whose tensors these are.
        safetensors_file.write(file, tensors, {"format": "pt", "helix": to_text(described)})


def _to_directory(checkpoint: Checkpoint, chosen: _Chosen, out: Path) -> None:
    syncs: deque[Future[None]] = deque()
    with new_directory(out) as directory, ThreadPoolExecutor(_SYNCS) as pool:
        for key, _, content in _zarr_keys(checkpoint, chosen):
            path = directory / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.writelines(part.data for part in content)
                file.flush()
                syncs.append(pool.submit(_bring_to_disk, os.dup(file.fileno())))
            if len(syncs) > _SYNCS:
                syncs.popleft().result()
        for sync in syncs:
            sync.result()


def _bring_to_disk(descriptor: int) -> None:
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _to_zip(checkpoint: Checkpoint, chosen: _Chosen, out: Path) -> None:
    with new_file(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for key, nbytes, content in _zarr_keys(checkpoint, chosen):
            entry = zipfile.ZipInfo(key)  # of a fixed date: equal checkpoints give equal files
            entry.file_size = nbytes
            entry.external_attr = 0o644 << 16
            is_large = nbytes > zipfile.ZIP64_LIMIT // 2
            header = _ZIP_HEADER + len(key) + (_ZIP64_FIELD if is_large else 0)
            entry.extra = _padding(file.tell() + header)
            with archive.open(entry, "w", force_zip64=is_large) as target:
                for part in content:
                    target.write(part.data)
            entry.extra = b""  # the directory at the end need not repeat it


def _padding(header_end: int) -> bytes:
    """Return an extra field that moves the end of a header to a multiple of `ALIGNMENT`."""
    n = -header_end % ALIGNMENT
    if 0 < n < 4:  # a field has four bytes at least
        n += ALIGNMENT
    return struct.pack("<HH", _PADDING_FIELD, n - 4) + bytes(n - 4) if n else b""


def _zarr_keys(checkpoint: Checkpoint, chosen: _Chosen) -> Iterator[tuple[str, int, Iterator[np.ndarray]]]:
    """Yield each key of the Zarr hierarchy, its size, and its bytes in parts of uint8."""
    for key, text in chosen.manifest.documents().items():
        content = np.frombuffer(text.encode(), np.uint8)
        yield key, len(content), iter([content])
    for name, stored in chosen.arrays.items():
        array = checkpoint.manifest.arrays[stored]
        for shard, extent in array.parts():
            key = f"{name}/{shard.key}"
            yield key, array.stored_bytes(extent), _shard(checkpoint, stored, shard, extent)


def _shard(checkpoint: Checkpoint, name: str, shard: Shard, extent: Extent) -> Iterator[np.ndarray]:
    """Yield what a shard holds: its chunks as they are stored, checked, and the tail that belongs to them."""
    layout = checkpoint.manifest.arrays[name].layout
    data = b""
    for content, _ in shard_chunks(checkpoint, name, shard, extent):
        if layout.chunk_shape is None:
            data = content.tobytes()
        yield content
    nbytes = layout.data_bytes(shard)
    tail = layout.compressed_tail(extent.lengths) if extent.lengths else layout.tail(nbytes, data)
    yield np.frombuffer(tail, np.uint8)
