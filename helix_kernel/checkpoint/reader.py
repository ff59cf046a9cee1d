"""Reading a checkpoint: whole, in part, into arrays that exist, or one slice of one array."""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs
import numpy as np

from helix_kernel.checkpoint import first_form
from helix_kernel.checkpoint.arrays import byte_pieces, to_torch
from helix_kernel.checkpoint.collector import uncollected
from helix_kernel.checkpoint.fetch import Piece, fetch
from helix_kernel.checkpoint.filling import filled
from helix_kernel.checkpoint.lazy_array import LazyArray
from helix_kernel.checkpoint.location import locate
from helix_kernel.checkpoint.manifest import Manifest
from helix_kernel.checkpoint.pack import ALIGNMENT
from helix_kernel.checkpoint.packed_array import PackedArray
from helix_kernel.checkpoint.selection import Selection
from helix_kernel.checkpoint.tree import UNREADABLE, Decoder
from helix_kernel.errors import CheckpointError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from helix_kernel.checkpoint.location import Address, Place
    from helix_kernel.checkpoint.pack_files import Packs


def load(
    path: Address,
    *,
    only: str | Iterable[str] | None = None,
    mmap: bool = False,
    verify: bool = True,
    as_torch: bool = False,
) -> dict[str | int, Any]:
    """Return a checkpoint's state, nested as it was saved.

    Args:
        path: The checkpoint's directory, or its place in an object store, such as
            ``s3://bucket/run/checkpoints/step-00000100``.
        only: Paths such as ``"model"`` or ``["model/norm", "optimizer"]``: of mappings, only what
            lies at or below them. Everything if left out.
        mmap: Return arrays that are read from the disk when they are touched, and copied when they
            are written to. The file must stay as it is for as long as they live. Arrays that are
            compressed, or that several ranks wrote, are read into memory at once.
        verify: Check everything that is read against its digest. Without it only missing files and
            wrong sizes are found.
        as_torch: Return CPU tensors; else numpy arrays, with bfloat16 and float8 of ml_dtypes.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
        IncompatibleCheckpointError: It is of a later version of the format.
        UnknownNameError: Nothing lies at one of `only`.
    """
    with Checkpoint.open(path) as checkpoint:
        return checkpoint.state(only=only, mmap=mmap, verify=verify, as_torch=as_torch)


def load_into(
    path: Address,
    state: Mapping[str | int, Any],
    *,
    only: str | Iterable[str] | None = None,
    verify: bool = True,
) -> None:
    """Read a checkpoint into arrays that exist: no second copy of them is made.

    Args:
        path: As for `load`.
        state: Nested as it was saved, with an array of the stored shape and type at each path: numpy,
            or torch on any device. Values that are no arrays are not looked at.
        only: As for `load`.
        verify: As for `load`. The arrays hold nothing of use after an error.

    Raises:
        CheckpointError: There is no checkpoint, or it is damaged.
        IncompatibleCheckpointError: An array is missing on either side, or has another shape or
            type; nothing was read then.
        UnknownNameError: Nothing lies at one of `only`.
    """
    with Checkpoint.open(path) as checkpoint:
        checkpoint.load_into(state, only=only, verify=verify)


@attrs.frozen
class ArrayInfo:
    """What is known of a stored array without reading it.

    Args:
        name: Its path.
        shape: Its shape.
        dtype: The Zarr name of its type, such as ``bfloat16``.
        digest: XXH3-128 over the digests of its chunks; equal arrays in equal layouts have the same.
        nbytes: How many bytes its elements have.
        stored_bytes: How many bytes it has in the packs, with checksums.
        compression: How it is compressed; None: it is not.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    digest: str
    nbytes: int
    stored_bytes: int
    compression: str | None


class Checkpoint:
    """An open checkpoint. Make one with `Checkpoint.open`; use it as a context, or `close` it.

    What was opened stays readable even when retention removes the step.

    Attributes:
        path: Where it lies.
        source: The same as text.
        attributes: What was saved as attributes.
        ties: Path of a tied array → the path under which it is stored.
        manifest: Where each array lies.
    """

    def __init__(self, path: Place, manifest: Manifest, packs: Packs) -> None:
        self.path = path
        self.source = str(path)
        self.attributes: dict[str, Any] = _decoded(
            Decoder(str), manifest.attributes, "attributes", self.source
        )
        self.ties = manifest.ties
        self.manifest = manifest
        self._packs = packs

    @functools.cached_property
    def arrays(self) -> dict[str, ArrayInfo]:
        """Path → what is known of the array; ties appear under the path that is stored."""
        return {
            name: ArrayInfo(
                name,
                stored.layout.shape,
                stored.layout.dtype_name,
                stored.digest,
                stored.layout.nbytes,
                sum(map(stored.stored_bytes, stored.extents)),
                stored.layout.compression,
            )
            for name, stored in self.manifest.arrays.items()
        }

    @classmethod
    def open(cls, path: Address) -> Checkpoint:
        """Open a checkpoint; reads and checks its manifest, no array.

        Raises:
            CheckpointError: There is no checkpoint, its manifest is damaged, or a pack is missing or
                has another size.
            IncompatibleCheckpointError: It is of a later version of the format.
        """
        location = locate(path)
        content = location.read_manifest()
        is_old = isinstance(location.place, Path) and first_form.is_first_form(content)
        read = first_form.read_manifest if is_old else Manifest.from_bytes
        manifest = read(content, str(location.place))
        return cls(location.place, manifest, location.open_packs(manifest.packs, _Owners(manifest)))

    def close(self) -> None:
        """Let go of the files; arrays that were loaded or mapped stay good."""
        self._packs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> LazyArray:
        """Return the array at a path, or the one that it is tied to; nothing is read yet."""
        stored = self.ties.get(name, name)
        if stored not in self.arrays:
            known = [*self.arrays, *self.ties]
            raise UnknownNameError(f"{self.source} has no array {name!r}.{did_you_mean(name, known)}")
        return LazyArray(self.source, PackedArray(stored, self.manifest.arrays[stored]), self._packs)

    def __contains__(self, name: object) -> bool:
        return name in self.arrays or name in self.ties

    def digest(self, name: str) -> str:
        """Return an array's digest, as it was when saved; see `ArrayInfo`."""
        return self.arrays[self[name].name].digest

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of an array's C-ordered little-endian bytes; reads and checks them.

        Raises:
            CheckpointError: They are damaged.
        """
        import hashlib

        found = hashlib.sha256()
        array = self[name]
        for piece in byte_pieces(array.read(), array.dtype):
            found.update(piece.data)
        return found.hexdigest()

    def read_into(self, pack: str, offset: int, target: memoryview, owner: str) -> None:
        """Fill a buffer with bytes of a pack, unchecked; see `Packs.read_into`."""
        self._packs.read_into(pack, offset, target, owner)

    def verify(self) -> None:
        """Read every byte and check it.

        Raises:
            CheckpointError: One is missing or was changed; the message names its file and its array.
        """
        arrays = [PackedArray(name, stored) for name, stored in self.manifest.arrays.items()]
        pieces = [piece for array in arrays for piece in array.checks()]
        fetch([*pieces, *_gaps(pieces)], self._packs, self.source)

    def state(
        self,
        *,
        only: str | Iterable[str] | None = None,
        mmap: bool = False,
        verify: bool = True,
        as_torch: bool = False,
    ) -> dict[str | int, Any]:
        """Return the state; the arguments are those of `load`."""
        reading = _Reading(self.source, self._packs, verify=verify, mmap=mmap)
        arrays: dict[str, Any] = {}

        def read(name: str) -> Any:
            stored = self.ties.get(name, name)
            if stored not in arrays:  # what was tied is one array again
                array = reading.add(PackedArray(stored, self.manifest.arrays[stored]))
                arrays[stored] = to_torch(array) if as_torch else array
            return arrays[stored]

        state = self._decode(read, only)
        reading.finish()
        return state

    def tree(self) -> dict[str | int, Any]:
        """Return the state with an `ArrayInfo` in place of each array; reads none."""
        return self._decode(lambda name: self.arrays[self.ties.get(name, name)], None)

    def load_into(
        self, state: Mapping[str | int, Any], *, only: str | Iterable[str] | None = None, verify: bool = True
    ) -> None:
        """Read into arrays that exist; see the function `load_into`."""
        wanted: dict[str, str] = {}

        def note(name: str) -> str:
            wanted[name] = self.ties.get(name, name)
            return name

        self._decode(note, only)
        reading = _Reading(self.source, self._packs, verify=verify)
        with filled(state, wanted, self.arrays, Selection(only), self.source) as targets:
            for name, target in targets.items():
                reading.add(PackedArray(wanted[name], self.manifest.arrays[wanted[name]]), target)
            reading.finish()

    @uncollected()
    def _decode(self, read: Callable[[str], Any], only: str | Iterable[str] | None) -> dict[str | int, Any]:
        selection = Selection(only)
        state = _decoded(
            Decoder(read, None if only is None else selection), self.manifest.state, "state", self.source
        )
        for path in selection.unmatched():
            known = sorted(
                {name.split("/")[0] for name in self.arrays} | set(map(str, state)) | set(self.arrays)
            )
            raise UnknownNameError(f"{self.source} holds nothing at {path!r}.{did_you_mean(path, known)}")
        return state


def _decoded(decoder: Decoder, document: Any, what: str, source: str) -> dict[Any, Any]:
    """Return the mapping that a document of a manifest says."""
    try:
        value = decoder.decode(document)
        if not isinstance(value, dict):
            raise TypeError("no mapping")
    except UNREADABLE as error:
        raise CheckpointError(f"{source} is damaged: its {what} cannot be read ({error!r})") from error
    return value


class _Reading:
    """Collects what is to be read, then reads it all at once."""

    def __init__(self, source: str, packs: Packs, *, verify: bool, mmap: bool = False) -> None:
        self._source = source
        self._packs = packs
        self._verify = verify
        self._mmap = mmap
        self._pieces: list[Piece] = []
        self._afterwards: list[Callable[[], None]] = []

    def add(self, array: PackedArray, out: np.ndarray | None = None) -> np.ndarray:
        """Return an array that will hold an array's content after `finish`."""
        mapped = array.mapped(self._packs) if self._mmap else None
        if mapped is not None:
            self._pieces += array.checks() if self._verify else ()
            return mapped
        if out is None:
            out = array.empty(array.stored.layout.shape, self._source)
        rows = np.atleast_1d(out)
        pieces, afterwards = array.pieces(0, len(rows), rows, verify=self._verify)
        self._pieces += pieces
        self._afterwards += afterwards
        return out

    def finish(self) -> None:
        fetch(self._pieces, self._packs, self._source)
        for complete in self._afterwards:
            complete()


class _Owners:
    """Says which array lies at or beyond an offset of a pack."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest

    def __call__(self, pack: str, offset: int) -> str:
        placed = sorted(
            (extent.offset + stored.stored_bytes(extent), name)
            for name, stored in self._manifest.arrays.items()
            for extent in stored.extents
            if extent.pack == pack
        )
        beyond = [name for end, name in placed if end > offset]
        return f"array {beyond[0]!r}" if beyond else "no array"


def _gaps(pieces: list[Piece]) -> list[Piece]:
    """Return pieces that check that nothing but zeros lies between arrays that follow one another.

    A wider gap is an array of an older checkpoint, in a pack that this one shares with it.
    """
    gaps = []
    placed = sorted(pieces, key=lambda piece: (piece.pack, piece.offset))
    for before, after in itertools.pairwise(placed):
        start = before.offset + before.nbytes + before.n_tail
        length = after.offset - start
        if before.pack == after.pack and 0 < length < ALIGNMENT:
            zeros = functools.partial(_zeros, length)
            gaps.append(Piece(after.pack, start, 0, None, None, 0, before.owner, length, zeros))
    return gaps


def _zeros(length: int, _: memoryview) -> bytes:
    return bytes(length)
