"""Writing a state as one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.arrays import describe
from helix_kernel.checkpoint.choosing import chosen
from helix_kernel.checkpoint.collector import uncollected
from helix_kernel.checkpoint.compression import check_compression
from helix_kernel.checkpoint.layout import Layout
from helix_kernel.checkpoint.location import locate
from helix_kernel.checkpoint.manifest import Manifest, StoredArray
from helix_kernel.checkpoint.parts import Part, packed_bytes, write_parts
from helix_kernel.checkpoint.reuse import Reused
from helix_kernel.checkpoint.tree import Encoder
from helix_kernel.errors import ArgumentError, CheckpointError

if TYPE_CHECKING:
    from helix_kernel.checkpoint.location import Address, NewStep


def save(
    path: Address,
    state: Mapping[str | int, Any],
    *,
    attributes: Mapping[str, Any] | None = None,
    compression: str | None = None,
) -> None:
    """Write a checkpoint; it exists, whole and on the disk, when this returns, and else not at all.

    Args:
        path: The directory to make, missing parents too; or a place in an object store, such as
            ``s3://bucket/run/first``.
        state: Nested mappings, lists and tuples of arrays (numpy, torch on any device, anything
            with DLPack) and of None, bool, int, float and str. Arrays that share exactly the same
            memory are stored once. Subclasses (named tuples, ordered dicts, torch parameters) come
            back as what they extend.
        attributes: The same without arrays, to be read without loading anything: config,
            components, step, metrics.
        compression: ``"bitshuffle-lz4"``: compress each array of which it leaves less than 97 %, as a
            part of the array shows that is tried before. What is compressed cannot be mapped.

    Raises:
        ArgumentError: A key or value cannot be stored, or there is no such compression.
        CheckpointError: `path` exists, or the system refuses a write; nothing is left there.
    """
    check_compression(compression)
    content = Content.of(state, attributes)
    if locate(path).is_checkpoint():  # found at the end anyway, but before everything is sent it is cheaper
        raise CheckpointError(f"{path} exists; a checkpoint is never written over: choose another path")
    write_step(path, content, compression=compression)


@attrs.frozen
class Content:
    """What a checkpoint is to hold, ready to be written.

    Args:
        arrays: Path → the array as it was given.
        layouts: Path → how it will be stored if it is not compressed.
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
    @uncollected()
    def of(cls, state: Mapping[Any, Any], attributes: Mapping[Any, Any] | None) -> Content:
        """Take a state apart; copies no array. For arguments and errors see `save`."""
        encoder = Encoder()
        tree = encoder.encode(_mapping(state, "state"))
        described = _encode_attributes(_mapping(attributes or {}, "attributes"))
        layouts = {name: Layout.of(*describe(array, name)) for name, array in encoder.arrays.items()}
        return cls(encoder.arrays, layouts, tree, encoder.ties, described)


def write_step(
    path: Address, content: Content, *, previous: Address | None = None, compression: str | None = None
) -> None:
    """Write a checkpoint from what `Content.of` made.

    Args:
        path: As for `save`.
        content: What it will hold.
        previous: An older checkpoint on the same file system: arrays that it holds bit for bit are
            not written again, its packs become this one's too by hard links, compressed or not.
        compression: As for `save`; of what is written.

    Raises:
        CheckpointError: See `save`.
    """
    with locate(path).new_step() as step:
        reused = Reused({}, {})
        if previous:
            reused = step.reuse(content.arrays, content.layouts, locate(previous))
        fresh = [name for name in content.arrays if name not in reused.arrays]
        written = _write_pack(step, [(content.arrays[n], content.layouts[n]) for n in fresh], compression)
        arrays = reused.arrays | dict(zip(fresh, written.arrays, strict=True))
        manifest = Manifest(
            arrays={name: arrays[name] for name in content.arrays},
            packs=written.packs | reused.packs,
            state=content.state,
            ties=content.ties,
            attributes=content.attributes,
        )
        step.write_manifest(manifest.to_bytes())


def pack_name(rank: int) -> str:
    """Return the name of the pack that a rank writes."""
    return f"data-{rank:05d}.bin"


@attrs.frozen
class _Written:
    packs: dict[str, int]
    arrays: list[StoredArray]


def _write_pack(step: NewStep, given: list[tuple[Any, Layout]], compression: str | None) -> _Written:
    """Write arrays of one shard each; one without elements has none."""
    arrays = [(array, chosen(array, layout, compression)) for array, layout in given]
    parts = [Part(layout, shard, array) for array, layout in arrays for shard in layout.shards]
    if not parts:
        return _Written({}, [StoredArray(layout, ()) for _, layout in arrays])
    name = step.own_name(pack_name(0))
    with step.new_pack(name, packed_bytes(parts)) as pack:
        extents = iter(write_parts(pack, name, parts))
        nbytes = pack.position
    return _Written({name: nbytes}, [StoredArray(x, tuple(islice(extents, x.n_shards))) for _, x in arrays])


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
