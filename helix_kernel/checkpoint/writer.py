"""Writing a state as one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from helix_kernel.checkpoint.arrays import byte_pieces, describe
from helix_kernel.checkpoint.digests import ChunkDigests
from helix_kernel.checkpoint.durable import new_directory, write_file
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.manifest import MANIFEST, Extent, Manifest, StoredArray
from helix_kernel.checkpoint.pack import ALIGNMENT, PackWriter
from helix_kernel.checkpoint.reuse import Reused, reuse
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
    write_step(Path(path), Content.of(state, attributes))


@attrs.frozen
class Content:
    """What a checkpoint is to hold, ready to be written.

    Args:
        arrays: Path → the array as it was given.
        layouts: Path → how it will be stored.
        state: The state as a document.
        ties: Path of a tied array → the path under which it is stored.
        attributes: The attributes as a document.
    """

    arrays: dict[str, Any]
    layouts: dict[str, Layout]
    state: Any
    ties: dict[str, str]
    attributes: Any

    @classmethod
    def of(cls, state: Mapping[Any, Any], attributes: Mapping[Any, Any] | None) -> Content:
        """Take a state apart; copies no array. For arguments and errors see `save`."""
        encoder = Encoder()
        tree = encoder.encode(_mapping(state, "state"))
        described = _encode_attributes(_mapping(attributes or {}, "attributes"))
        layouts = {name: Layout.of(*describe(array, name)) for name, array in encoder.arrays.items()}
        return cls(encoder.arrays, layouts, tree, encoder.ties, described)

    @property
    def nbytes(self) -> int:
        """Size of all arrays."""
        return sum(layout.nbytes for layout in self.layouts.values())


def write_step(path: Path, content: Content, *, previous: Path | None = None) -> None:
    """Write a checkpoint from what `Content.of` made.

    Args:
        path: The directory to make.
        content: What it will hold.
        previous: An older checkpoint on the same file system: arrays that it holds bit for bit are
            not written again, its packs become this one's too by hard links.

    Raises:
        CheckpointError: See `save`.
    """
    with new_directory(path) as directory:
        reused = reuse(content.arrays, content.layouts, previous, directory) if previous else Reused({}, {})
        fresh = [name for name in content.arrays if name not in reused.arrays]
        written = _write_pack(
            directory / pack_name(0), [(content.arrays[n], content.layouts[n]) for n in fresh]
        )
        arrays = reused.arrays | dict(zip(fresh, written.arrays, strict=True))
        manifest = Manifest(
            arrays={name: arrays[name] for name in content.arrays},
            packs=written.packs | reused.packs,
            state=content.state,
            ties=content.ties,
            attributes=content.attributes,
        )
        write_file(directory / MANIFEST, manifest.to_bytes())


def pack_name(rank: int) -> str:
    """Return the name of the pack that a rank writes."""
    return f"data-{rank:05d}.bin"


@attrs.frozen
class _Written:
    packs: dict[str, int]
    arrays: list[StoredArray]


def _write_pack(path: Path, arrays: list[tuple[Any, Layout]]) -> _Written:
    """Write arrays of one shard each, one behind the other."""
    offsets, nbytes = [], 0
    for _, layout in arrays:
        offsets.append(-(-nbytes // ALIGNMENT) * ALIGNMENT)
        if layout.nbytes:
            nbytes = offsets[-1] + layout.stored_bytes
    if not nbytes:
        return _Written({}, [StoredArray(layout, ()) for _, layout in arrays])
    stored = []
    with PackWriter(path, nbytes) as pack:
        for (array, layout), offset in zip(arrays, offsets, strict=True):
            extents: tuple[Extent, ...] = ()
            if layout.nbytes:
                pack.skip_to(offset)
                extents = (Extent(path.name, offset, _append(pack, array, layout)),)
            stored.append(StoredArray(layout, extents))
    return _Written({path.name: nbytes}, stored)


def _append(pack: PackWriter, array: Any, layout: Layout) -> tuple[str, ...]:
    """Append one shard to a pack and return the digests of its chunks."""
    digests = ChunkDigests(layout.chunk_bytes)
    data = bytearray()
    for piece in byte_pieces(array, layout.dtype):
        digests.update(piece)
        pack.write(piece)
        if layout.chunk_shape is None:
            data += piece.tobytes()
    pack.write(np.frombuffer(layout.tail(layout.nbytes, bytes(data)), np.uint8))
    return digests.finish()


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
