"""Reads every byte of a folder of shards, and names what is damaged."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from helix_data.shards.index import SPLITS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from helix_data.shards.index import Index, Shard


def damage(folder: Path, index: Index) -> Iterator[str]:
    """Yield what is wrong with the files that an index names, each with the file's name.

    Args:
        folder: Where they lie.
        index: Of the folder.
    """
    for split in SPLITS:
        for shard in index.split(split):
            found = [said for name, known in shard.files.items() for said in _of_file(folder / name, *known)]
            yield from found
            if not found:
                yield from _of_ends(folder, shard)


def _of_file(path: Path, size: int, sha256: str) -> Iterator[str]:
    try:
        found = path.stat().st_size
        if found != size:
            yield f"{path.name}: has {found:,} bytes where the index says {size:,}"
            return
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        yield f"{path.name}: cannot be read: {error.strerror}"
        return
    if digest != sha256:
        yield f"{path.name}: its SHA-256 is {digest} where the index says {sha256}"


def _of_ends(folder: Path, shard: Shard) -> Iterator[str]:
    """Yield what is wrong with ends that are what was written: an index made by hand, or a bug of ours."""
    ends = np.fromfile(folder / f"{shard.name}.ends", dtype="<u8")
    if ends[-1] != shard.bytes or (ends[1:] <= ends[:-1]).any() or ends[0] == 0:
        yield f"{shard.name}.ends: documents end out of order, or not where the shard does"
