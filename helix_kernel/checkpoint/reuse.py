"""Incremental checkpoints: arrays that an older step holds bit for bit are not written again.

The older step's packs become the new one's too, by hard links. Every step stays a directory that needs
no other, so that removing one can never harm another.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.arrays import byte_pieces
from helix_kernel.checkpoint.digests import ChunkDigests
from helix_kernel.checkpoint.manifest import MANIFEST, Manifest, StoredArray
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from helix_kernel.checkpoint.layout import Layout

_log = logging.getLogger(__name__)


@attrs.frozen
class Reused:
    """What need not be written.

    Args:
        arrays: Path → where an unchanged array lies.
        packs: Name of each pack that was linked → its size.
    """

    arrays: dict[str, StoredArray]
    packs: dict[str, int]


def reuse(arrays: dict[str, Any], layouts: dict[str, Layout], previous: Path, directory: Path) -> Reused:
    """Link the packs of an older checkpoint that hold unchanged arrays.

    Arrays are compared by their digests, never by version counters, which fused optimizers do not
    advance. A pack that would be used to less than half is not linked, so that a step never keeps
    more than twice its own size alive.

    Args:
        arrays: Path → array to be saved.
        layouts: Path → how it would be stored if it were not compressed; what is taken over stays as it is.
        previous: The older checkpoint. One that cannot be read, or not be linked, is not used.
        directory: The new one.
    """
    try:
        older = Manifest.from_bytes((previous / MANIFEST).read_bytes(), str(previous))
    except (OSError, CheckpointError) as error:
        _log.warning("nothing of %s is reused: %s", previous, error)
        return Reused({}, {})
    same = {
        name: older.arrays[name]
        for name, array in arrays.items()
        if name in older.arrays and _is_same(array, layouts[name], older.arrays[name])
    }
    names = {pack: _link(previous, pack, directory) for pack in _well_used(same, older.packs)}
    kept = {name: _renamed(array, names) for name, array in same.items()}
    return Reused(
        {name: array for name, array in kept.items() if array is not None},
        {name: older.packs[pack] for pack, name in names.items() if name is not None},
    )


def _is_same(array: Any, layout: Layout, stored: StoredArray) -> bool:
    if stored.layout.compressed(None) != layout or len(stored.extents) != 1:
        return False
    digests = ChunkDigests(layout.chunk_bytes)
    for piece in byte_pieces(array, layout.dtype):
        digests.update(piece)
    return digests.finish() == stored.extents[0].digests


def _well_used(arrays: dict[str, StoredArray], packs: dict[str, int]) -> list[str]:
    used = dict.fromkeys(packs, 0)
    for array in arrays.values():
        for extent in array.extents:
            used[extent.pack] += array.stored_bytes(extent)
    return [pack for pack, nbytes in used.items() if 2 * nbytes >= packs[pack]]


def _link(previous: Path, pack: str, directory: Path) -> str | None:
    """Link a pack under a name that tells the step it was written by; None where that cannot be done."""
    name = pack if pack.count(".") > 1 else f"{previous.name}.{pack}"
    try:
        os.link(previous / pack, directory / name)
    except OSError as error:
        _log.warning("%s is written anew, since it cannot be linked: %s", previous / pack, error.strerror)
        return None
    return name


def _renamed(array: StoredArray, names: dict[str, str | None]) -> StoredArray | None:
    extents = []
    for extent in array.extents:
        name = names.get(extent.pack)
        if name is None:
            return None
        extents.append(extent._replace(pack=name))
    return StoredArray(array.layout, tuple(extents))
