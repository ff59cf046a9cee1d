"""Reads the first form of checkpoints, one file a chunk, as helix-kernel 0.1 and 0.2 wrote them.

Opening one reads and checks all of it against its SHA-256 digests; after that it is like any other.
``helix checkpoint convert`` turns it into the present form.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from helix_kernel.checkpoint.digests import ChunkDigests
from helix_kernel.checkpoint.dtypes import DTYPES
from helix_kernel.checkpoint.layout import Layout, Shard
from helix_kernel.checkpoint.manifest import (
    MANIFEST,
    Extent,
    Manifest,
    StoredArray,
    check_ties,
    checked_path,
)
from helix_kernel.checkpoint.regular_file import read_regular
from helix_kernel.errors import CheckpointError

_MOST_BYTES = 2**24  # a file has at most one chunk, which was cut to 4 MiB
_BEGINNING = b'{"format":"helix-checkpoint","version":1,"files":{'


def is_first_form(content: bytes) -> bool:
    """Whether these are the bytes of a manifest of the first form."""
    return content.startswith(_BEGINNING)


def read_manifest(content: bytes, source: str) -> Manifest:
    """Read a manifest of the first form and every file that it lists.

    Args:
        content: The manifest's bytes.
        source: The checkpoint's directory.

    Raises:
        CheckpointError: A file is missing, cut short or changed; names it and its array.
    """
    try:
        files = _files(content)
        for group in (name for name in files if name.endswith("zarr.json")):
            _read(source, group, files, f"group {group.rpartition('/')[0]!r}")
        root = json.loads(_read(source, "zarr.json", files, "the checkpoint's index of arrays"))
        described = root["attributes"]["helix"]
        packs: dict[str, int] = {}
        arrays = {
            checked_path(name): _read_array(source, name, entry, files, packs)
            for name, entry in described["arrays"].items()
        }
        manifest = Manifest(
            arrays=arrays,
            packs=packs,
            state=described["state"],
            ties=described["ties"],
            attributes=described["attributes"],
        )
        check_ties(manifest)
        manifest.root_metadata()  # refuses what is no JSON, such as NaN
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{source} is damaged: {MANIFEST} is truncated or was changed ({error!r})"
        ) from error
    return manifest


def _files(content: bytes) -> dict[str, tuple[int, str]]:
    document = json.loads(content)
    digest = document.pop("sha256")
    body = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    if hashlib.sha256(body).hexdigest() != digest:
        raise ValueError("its SHA-256 is another")
    return {checked_path(name): (size, sha256) for name, (size, sha256) in document["files"].items()}


def _read_array(
    source: str, name: str, entry: dict[str, Any], files: dict[str, tuple[int, str]], packs: dict[str, int]
) -> StoredArray:
    layout = _layout(entry)
    if layout.n_shards > len(files):
        raise ValueError(f"array {name!r} has fewer files than its shape says")
    extents = []
    for shard in layout.shards:
        file = f"{name}/{_key(shard)}"
        content = np.frombuffer(_read(source, file, files, f"array {name!r}"), np.uint8)
        if len(content) != layout.stored_bytes:
            raise ValueError(f"{file} is not as long as its array's shape says")
        digests = ChunkDigests(layout.chunk_bytes)
        digests.update(content[: layout.data_bytes(shard)])
        packs[file] = len(content)
        extents.append(Extent(file, 0, digests.finish()))
    return StoredArray(layout, tuple(extents))


def _layout(entry: dict[str, Any]) -> Layout:
    shape, chunks = tuple(entry["shape"]), tuple(entry["chunks"])
    if len(shape) != len(chunks) or 0 in chunks:
        raise ValueError(f"chunks {chunks} of shape {shape}")
    for length in (*shape, *chunks):
        if type(length) is not int or not 0 <= length < 2**63:
            raise ValueError(f"length {length}")
    return Layout(shape, DTYPES[entry["dtype"]], chunks, None)


def _key(shard: Shard) -> str:
    return shard.key.replace("/", ".")


def _read(source: str, name: str, files: dict[str, tuple[int, str]], owner: str) -> bytes:
    size, sha256 = files[name]
    try:
        content = read_regular(Path(source) / name, max(size, _MOST_BYTES))
    except FileNotFoundError:
        raise CheckpointError(f"{source} is damaged: {name}, part of {owner}, is missing") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {name} of {source}, part of {owner}: {error.strerror}") from error
    if len(content) != size:
        raise CheckpointError(
            f"{source} is damaged: {name}, part of {owner}, has {len(content)} bytes of {size}"
        )
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(
            f"{source} is damaged: {name}, part of {owner}, was changed after it was written"
        )
    return content
