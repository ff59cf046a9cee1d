"""A step's one document: where each Zarr key lies, and what its bytes must be. Written last, read first.

``manifest.json`` is a reference file of fsspec (https://fsspec.github.io/kerchunk/spec.html, version 1):
metadata documents stand in it as text, shards as ``[pack, offset, length]``. The root group's
attribute ``helix`` holds what the state was besides its arrays. Beside the references stand the packs'
sizes and the digests of the chunks, and of compressed ones their lengths; the last member is the digest of
all before it.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from helix_kernel.checkpoint.collector import uncollected
from helix_kernel.checkpoint.compression import MOST_UNFOLDED, most_stored_bytes
from helix_kernel.checkpoint.digests import HEX_LENGTH, digest_of, digest_of_all
from helix_kernel.checkpoint.layout import Layout, Shard, group_metadata, to_text
from helix_kernel.checkpoint.regular_file import read_regular
from helix_kernel.errors import CheckpointError, IncompatibleCheckpointError

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "manifest.json"
FORMAT = "helix-checkpoint"
VERSION = 2
COMPRESSED_VERSION = 3
"""Of checkpoints with a compressed array: a reader that knows none must refuse them."""

_ROOT = "zarr.json"
_MOST_BYTES = 2**30  # a checkpoint of 100 TB has a manifest of this size
_PACK_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}\.bin")
_ARRAY_PATH = re.compile(r"(?:(?!\.{1,2}(?:/|\Z))[^/\\\0]+/)*(?!\.{1,2}\Z)[^/\\\0]+")
_SEAL = re.compile(rb',"xxh3":"([0-9a-f]{%d})"}' % HEX_LENGTH)
_SEAL_LENGTH = HEX_LENGTH + 11


class Extent(NamedTuple):
    """Where a shard lies, and the digest of each of its inner chunks (of elements, not of padding).

    Of a compressed array, `lengths` are the stored sizes of the chunks; the digests are of what they hold.
    """

    pack: str
    offset: int
    digests: tuple[str, ...]
    lengths: tuple[int, ...] = ()


@attrs.frozen
class StoredArray:
    """One array of a checkpoint: its layout, and where each of its shards lies, in their order."""

    layout: Layout
    extents: tuple[Extent, ...]

    @functools.cached_property
    def digest(self) -> str:
        """The digest of the array; equal arrays in equal layouts have the same."""
        return digest_of_all([digest for extent in self.extents for digest in extent.digests])

    def stored_bytes(self, extent: Extent) -> int:
        """Return how many bytes one of its shards has in its pack."""
        layout = self.layout
        return layout.compressed_bytes(extent.lengths) if layout.compression else layout.stored_bytes

    def parts(self) -> list[tuple[Shard, Extent]]:
        """Return each shard with its extent."""
        return [*zip(self.layout.shards, self.extents, strict=True)]


@attrs.frozen(kw_only=True)
class Manifest:
    """What a checkpoint holds.

    Args:
        arrays: Path → where and how the array is stored.
        packs: Name of a file beside the manifest → its size in bytes.
        state: The state as a document, arrays by path (`tree.Encoder`).
        ties: Path of a tied array → the path under which it is stored.
        attributes: The attributes as a document.
    """

    arrays: dict[str, StoredArray]
    packs: dict[str, int]
    state: Any
    ties: dict[str, str]
    attributes: Any

    @functools.cached_property
    def version(self) -> int:
        """The version of the format that it needs."""
        is_compressed = any(array.layout.compression for array in self.arrays.values())
        return COMPRESSED_VERSION if is_compressed else VERSION

    @uncollected()
    def to_bytes(self) -> bytes:
        """Return the content of ``manifest.json``."""
        # Put together by hand: paths need no escapes, and thousands of arrays share a few documents.
        group = json.dumps(group_metadata({}))
        references = [f'"{_ROOT}":{json.dumps(self.root_metadata())}']
        references += [f'"{path}/{_ROOT}":{group}' for path in groups_of(self.arrays)]
        chunks, compressed = [], {}
        for name, array in self.arrays.items():
            references.append(f'"{name}/{_ROOT}":{array.layout.quoted_metadata}')
            for shard, extent in array.parts():
                pack, offset, digests, lengths = extent
                references.append(f'"{name}/{shard.key}":["{pack}",{offset},{array.stored_bytes(extent)}]')
                listed = '","'.join(digests)
                chunks.append(f'"{name}/{shard.key}":["{listed}"]')
                if lengths:
                    compressed[f"{name}/{shard.key}"] = lengths
        own = to_text(
            {"format": FORMAT, "version": self.version, "packs": self.packs}
            | ({"lengths": compressed} if compressed else {})
        )
        fsspec_version = 1
        return seal(
            f'{{"version":{fsspec_version},"refs":{{{",".join(references)}}},'
            f'"helix":{own[:-1]},"chunks":{{{",".join(chunks)}}}}}}}'.encode()
        )

    def documents(self) -> dict[str, str]:
        """Return the metadata documents: Zarr key → text."""
        documents = {_ROOT: self.root_metadata()}
        documents |= dict.fromkeys(
            (f"{group}/{_ROOT}" for group in groups_of(self.arrays)), group_metadata({})
        )
        return documents | {f"{name}/{_ROOT}": array.layout.metadata for name, array in self.arrays.items()}

    def shards(self) -> dict[str, list[Any]]:
        """Return where the shards lie: Zarr key → pack, offset, length."""
        return {
            f"{name}/{shard.key}": [extent.pack, extent.offset, array.stored_bytes(extent)]
            for name, array in self.arrays.items()
            for shard, extent in array.parts()
        }

    def root_metadata(self) -> str:
        """Return the root group's ``zarr.json``, whose attribute ``helix`` is all but the bytes."""
        described = {
            "format": FORMAT,
            "version": self.version,
            "attributes": self.attributes,
            "digests": {name: array.digest for name, array in self.arrays.items()},
            "ties": self.ties,
            "state": self.state,
        }
        return group_metadata({"helix": described})

    @classmethod
    @uncollected()
    def from_bytes(cls, content: bytes, source: str) -> Manifest:
        """Read what `to_bytes` wrote, and nothing else.

        Args:
            content: The bytes of ``manifest.json``.
            source: The checkpoint, for errors.

        Raises:
            CheckpointError: It is damaged, or says what no writer of Helix says.
            IncompatibleCheckpointError: It is of a later version of the format.
        """
        document = _unseal(content, source)
        try:
            version = document["helix"]["version"]
            if type(version) is int and version > COMPRESSED_VERSION:
                raise IncompatibleCheckpointError(
                    f"{source} is of checkpoint format {version}; this helix-kernel reads up to "
                    f"{COMPRESSED_VERSION}: upgrade it with pip install --upgrade helix-kernel"
                )
            return _read(document)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{source} is damaged: {MANIFEST} is no manifest of Helix ({error})"
            ) from error


def read_manifest(directory: Path) -> bytes:
    """Return the bytes of a checkpoint's manifest, of any form.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    try:
        return read_regular(directory / MANIFEST, _MOST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        if directory.is_dir():
            reason = f"is no checkpoint: it has no {MANIFEST}, which is written last"
        else:
            kind = "is a file" if directory.exists() else "does not exist"
            reason = f"{kind}; a checkpoint is a directory with a {MANIFEST}"
        raise CheckpointError(f"{directory} {reason}") from None
    except OSError as error:
        raise CheckpointError(f"cannot read {directory / MANIFEST}: {error.strerror}") from error


def seal(document: bytes) -> bytes:
    """Add the digest of a JSON object as its last member: the rule that no later version may change."""
    return b'%s,"xxh3":"%s"}' % (document[:-1], digest_of(document[:-1]).encode())


def groups_of(arrays: dict[str, Any]) -> list[str]:
    """Return the paths of the groups that hold the arrays, the root left out."""
    groups: set[str] = set()
    for name in arrays:
        parent = name.rpartition("/")[0]
        while parent and parent not in groups:
            groups.add(parent)
            parent = parent.rpartition("/")[0]
    return sorted(groups)


def checked_path(name: str) -> str:
    """Return an array's path if it stays inside a hierarchy: it may become a path of files in an export.

    Raises:
        ValueError: It leaves it.
    """
    if not _ARRAY_PATH.fullmatch(name):
        raise ValueError(f"array {name!r} has a path that leaves the checkpoint")
    return name


def check_ties(manifest: Manifest) -> None:
    """Refuse ties to what is not stored.

    Raises:
        ValueError: There is one.
    """
    for tied, stored in manifest.ties.items():
        checked_path(tied)
        if stored not in manifest.arrays or tied in manifest.arrays:
            raise ValueError(f"{tied} is tied to {stored}, which is not stored")


def _unseal(content: bytes, source: str) -> dict[str, Any]:
    found = _SEAL.fullmatch(content, max(0, len(content) - _SEAL_LENGTH))
    body = content[:-_SEAL_LENGTH]
    if not found or digest_of(body) != found[1].decode():
        raise CheckpointError(
            f"{source} is damaged: {MANIFEST} is truncated or was changed, or is no manifest"
        )
    try:
        document: dict[str, Any] = json.loads(body + b"}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source} is damaged: {MANIFEST} is no JSON ({error})") from error
    return document


def _read(document: dict[str, Any]) -> Manifest:
    references, own = document["refs"], document["helix"]
    if (own["format"], document["version"]) != (FORMAT, 1):
        raise ValueError("another format")
    root = json.loads(references[_ROOT])["attributes"]["helix"]
    packs = {_pack_name(name): _size(size) for name, size in own["packs"].items()}
    arrays = {name: _read_array(name, references, own, packs) for name in map(checked_path, root["digests"])}
    manifest = Manifest(
        arrays=arrays, packs=packs, state=root["state"], ties=root["ties"], attributes=root["attributes"]
    )
    check_ties(manifest)
    _check_overlaps(manifest)
    _check_nothing_else(manifest, document)
    return manifest


def _read_array(
    name: str, references: dict[str, Any], own: dict[str, Any], packs: dict[str, int]
) -> StoredArray:
    chunks: dict[str, list[str]] = own["chunks"]
    layout = Layout.from_metadata(references[f"{name}/{_ROOT}"])
    if layout.n_shards > len(chunks):
        raise ValueError(f"array {name!r} has fewer shards than its shape says")
    extents = []
    for shard, n_chunks in zip(layout.shards, layout.chunk_counts, strict=True):
        key = f"{name}/{shard.key}"
        pack, offset, length = references[key]
        expected = layout.stored_bytes
        lengths = tuple(own["lengths"][key]) if layout.compression else ()
        if layout.compression:
            _check_lengths(key, lengths, n_chunks, layout)
            expected = layout.compressed_bytes(lengths)
        if length != expected or not 0 <= _size(offset) <= packs[pack] - length:
            raise ValueError(f"{key} lies outside of its pack, or is not as long as its shape says")
        digests = tuple(chunks[key])
        if len(digests) != n_chunks:
            raise ValueError(f"{key} has {len(digests)} digests for {n_chunks} chunks")
        extents.append(Extent(pack, offset, digests, lengths))
    return StoredArray(layout, tuple(extents))


def _check_lengths(key: str, lengths: tuple[int, ...], n_chunks: int, layout: Layout) -> None:
    """Refuse compressed chunks that would unfold to more than any that were compressed do."""
    fewest, most = layout.chunk_bytes / MOST_UNFOLDED, most_stored_bytes(layout.chunk_bytes)
    if len(lengths) != n_chunks or not all(fewest < _size(length) <= most for length in lengths):
        raise ValueError(f"{key} has compressed chunks of {lengths[:3]}… bytes, which hold no such array")


def _check_nothing_else(manifest: Manifest, document: dict[str, Any]) -> None:
    """Refuse what this reader would not look at, but another would: all that no writer of Helix writes."""
    references, own = document["refs"], document["helix"]
    n_shards = sum(len(array.extents) for array in manifest.arrays.values())
    n_compressed = sum(len(a.extents) for a in manifest.arrays.values() if a.layout.compression)
    lengths = {"lengths"} if n_compressed else set()
    groups, group = groups_of(manifest.arrays), group_metadata({})
    whole = (
        document.keys() == {"version", "refs", "helix"}
        and own.keys() == {"format", "version", "packs", "chunks"} | lengths
        and own["version"] == manifest.version
        and len(own.get("lengths", ())) == n_compressed
        and len(own["chunks"]) == n_shards
        and len(references) == 1 + len(groups) + len(manifest.arrays) + n_shards
        and all(references[f"{path}/{_ROOT}"] == group for path in groups)
        and references[_ROOT] == manifest.root_metadata()
    )
    if not whole:
        raise ValueError("its references, digests and root do not belong together")


def _pack_name(name: str) -> str:
    if not _PACK_NAME.fullmatch(name):
        raise ValueError(f"pack {name!r} has a name that no writer gives")
    return name


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no size")
    return value


def _check_overlaps(manifest: Manifest) -> None:
    ends: dict[str, int] = {}
    placed = sorted(
        (extent.pack, extent.offset, array.stored_bytes(extent), name)
        for name, array in manifest.arrays.items()
        for extent in array.extents
    )
    for pack, offset, length, name in placed:
        if offset < ends.get(pack, 0):
            raise ValueError(f"{name} overlaps another array in {pack}")
        ends[pack] = offset + length
