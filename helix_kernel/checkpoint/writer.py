"""Writing a state as one checkpoint."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from helix_kernel.checkpoint.arrays import to_numpy
from helix_kernel.checkpoint.durable import new_directory, write_file
from helix_kernel.checkpoint.layout import Chunk, Layout, group_metadata
from helix_kernel.checkpoint.manifest import FORMAT, VERSION, FileDigest, Manifest
from helix_kernel.checkpoint.tree import Encoder
from helix_kernel.errors import ArgumentError


def save(
    path: str | Path, state: Mapping[str | int, Any], *, attributes: Mapping[str, Any] | None = None
) -> None:
    """Write a checkpoint; it exists, whole and on the disk, when this returns, and else not at all.

    Args:
        path: The directory to make; missing parents are made too.
        state: Nested mappings, lists and tuples of arrays (numpy, torch on any device, anything
            with DLPack) and of None, bool, int, float and str. Arrays that share exactly the same
            memory are stored once. Subclasses (named tuples, ordered dicts, torch parameters) come
            back as what they extend.
        attributes: The same without arrays, to be read without loading anything: config,
            components, step, metrics.

    Raises:
        ArgumentError: A key or value cannot be stored.
        CheckpointError: `path` exists, or the system refuses a write; nothing is left there.
    """
    encoder = Encoder()
    tree = encoder.encode(_mapping(state, "state"))
    described = _encode_attributes(_mapping(attributes or {}, "attributes"))
    arrays = {name: to_numpy(array, name) for name, array in encoder.arrays.items()}
    with new_directory(Path(path)) as directory:
        files: dict[str, FileDigest] = {}
        digests = {name: _write_array(directory, name, array, files) for name, array in arrays.items()}
        root = {
            "format": FORMAT,
            "version": VERSION,
            "attributes": described,
            "arrays": {
                name: {**Layout.of(arrays[name]).to_json(), "sha256": digests[name]} for name in arrays
            },
            "ties": encoder.ties,
            "state": tree,
        }
        documents = {group: group_metadata({}) for group in _groups(arrays)} | {
            "": group_metadata({"helix": root})
        }
        for group, document in documents.items():
            name = f"{group}/zarr.json".lstrip("/")
            write_file(directory / name, document)
            files[name] = FileDigest.of(document)
        Manifest(dict(sorted(files.items()))).write(directory)


def _mapping(value: Any, argument: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise ArgumentError(f"{argument} is a {type(value).__qualname__}; allowed is a mapping")
    return value


def _encode_attributes(attributes: Mapping[Any, Any]) -> Any:
    encoder = Encoder()
    document = encoder.encode(attributes)
    if encoder.arrays:
        name = next(iter(encoder.arrays))
        raise ArgumentError(f"attribute {name!r} is an array; arrays belong in the state")
    return document


def _write_array(directory: Path, name: str, array: np.ndarray, files: dict[str, FileDigest]) -> str:
    """Write one array, list its files in `files` and return its SHA-256."""
    layout = Layout.of(array)
    folder = directory / name
    folder.mkdir(parents=True)
    metadata = layout.metadata()
    write_file(folder / "zarr.json", metadata)
    files[f"{name}/zarr.json"] = FileDigest.of(metadata)
    data = array.reshape(-1).view(np.uint8).data
    whole = hashlib.sha256(data)
    chunks = list(layout.chunks())
    for chunk in chunks:
        content = data[chunk.start : chunk.stop]
        digest = whole.copy() if len(chunks) == 1 else hashlib.sha256(content)
        files[f"{name}/{chunk.key}"] = _write_chunk(folder / chunk.key, content, chunk, digest)
    return whole.hexdigest()


def _write_chunk(path: Path, content: memoryview, chunk: Chunk, digest: hashlib._Hash) -> FileDigest:
    """Write one chunk with its CRC-32C; `digest` has seen the content already."""
    padded = bytes(content) + bytes(chunk.padding)
    crc = struct.pack("<I", google_crc32c.value(padded))
    digest.update(padded[len(content) :] + crc)
    write_file(path, padded + crc)
    return FileDigest(chunk.file_bytes, digest.hexdigest())


def _groups(arrays: Iterable[str]) -> list[str]:
    """Return the paths of the groups that hold the arrays, the root left out."""
    return sorted({parent.as_posix() for name in arrays for parent in Path(name).parents} - {"."})
