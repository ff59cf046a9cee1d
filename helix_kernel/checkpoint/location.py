"""Where checkpoints lie: directories of a file system, or prefixes of an object store."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import unquote, urlsplit

from helix_kernel.checkpoint.directory import Directory
from helix_kernel.errors import ArgumentError, DependencyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from obstore.store import ObjectStore

    from helix_kernel.checkpoint.layout import Layout
    from helix_kernel.checkpoint.object_store import ObjectPrefix
    from helix_kernel.checkpoint.pack_files import Packs
    from helix_kernel.checkpoint.reuse import Reused

    Place: TypeAlias = Path | ObjectPrefix
    """What users are given: it can be printed, loaded from, and extended by ``/ name``."""

    Address: TypeAlias = str | Place | ObjectStore
    """What users give: a path, a URL such as ``s3://bucket/run``, or a store of obstore."""


class Location(Protocol):
    """A place for one checkpoint, or for those of a run."""

    @property
    def place(self) -> Place:
        """The place as users see it."""

    def is_checkpoint(self) -> bool:
        """Whether there is a manifest."""

    def state(self) -> str:
        """Return what is there that is no checkpoint, as the end of a sentence: ``does not exist``."""

    def read_manifest(self) -> bytes:
        """Return the bytes of a checkpoint's manifest.

        Raises:
            CheckpointError: There is none, or it cannot be read.
        """

    def open_packs(self, packs: dict[str, int], owner: Callable[[str, int], str]) -> Packs:
        """Open the packs of a checkpoint.

        Args:
            packs: Name → size.
            owner: Says of a pack and a size which array lies beyond that size.

        Raises:
            CheckpointError: A pack is missing, truncated or grown.
        """

    def new_step(self) -> AbstractContextManager[NewStep]:
        """Give a checkpoint to fill, which is there when the block ends without error, and else is not.

        Raises:
            CheckpointError: There is one already, or a write is refused.
        """

    def run(self) -> Run:
        """Return the checkpoints that lie below."""


class NewStep(Protocol):
    """A checkpoint that is being written."""

    def own_name(self, pack: str) -> str:
        """Return the name that a pack gets here."""

    def new_pack(self, name: str, nbytes: int) -> AbstractContextManager[PackSink]:
        """Give a pack to write from its beginning to its end, of so many bytes at most."""

    def reuse(self, arrays: dict[str, Any], layouts: dict[str, Layout], previous: Location) -> Reused:
        """Take over what an older checkpoint holds bit for bit; see `reuse.reuse`."""

    def write_manifest(self, content: bytes) -> None:
        """Write the manifest, after everything else."""


class PackSink(Protocol):
    """A pack that is being written."""

    @property
    def position(self) -> int:
        """How many bytes were written."""

    def write(self, content: bytes | memoryview) -> None:
        """Append bytes; a memory that they are a view of must not change until the pack is whole."""


class Run(Protocol):
    """What lies in the place of a run: one name for each step."""

    def names(self) -> list[str]:
        """Return the names of what is there; none where the place is missing."""

    def claim(self) -> list[str]:
        """Become the writer, or stay it; clear what dead ones left; return what `names` does.

        Raises:
            CheckpointError: There is another writer, or the place refuses to be written.
        """

    def remove(self, names: list[str]) -> None:
        """Remove steps, each so that it is at once whole or gone for every reader."""

    def release(self) -> None:
        """Let others write, if this was the writer."""


def locate(address: Address | Location) -> Location:
    """Return the location that an address means.

    Raises:
        ArgumentError: It is no path, no URL of a scheme that is known, and no store.
        DependencyError: It is a URL, and obstore is not installed.
    """
    if isinstance(address, Path):
        return Directory(address)
    if isinstance(address, str) and "://" in address:
        return _locate_url(address)
    if isinstance(address, str | os.PathLike):
        return Directory(Path(address))
    found = _object_prefix().of_store(address) if "obstore" in sys.modules else None
    if found is None:
        raise ArgumentError(
            f"{address!r} is no place for checkpoints; allowed are a path, a URL such as s3://bucket/run, "
            "and a store of obstore"
        )
    return found


def _locate_url(url: str) -> Location:
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Directory(Path(unquote(parts.path)))
    return _object_prefix().of_url(url)


def _object_prefix() -> type[ObjectPrefix]:
    try:
        from helix_kernel.checkpoint.object_store import ObjectPrefix
    except ModuleNotFoundError as error:
        if error.name != "obstore":
            raise
        raise DependencyError(
            "checkpoints in object stores need obstore; install it with pip install 'helix-kernel[objects]'"
        ) from error
    return ObjectPrefix
