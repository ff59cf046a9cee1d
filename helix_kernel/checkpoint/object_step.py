"""Writing one step to an object store."""

from __future__ import annotations

import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import HTTPStore

from helix_kernel.checkpoint.manifest import MANIFEST
from helix_kernel.checkpoint.object_errors import named_errors
from helix_kernel.checkpoint.reuse import Reused
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from obstore import WritableFile

    from helix_kernel.checkpoint.layout import Layout
    from helix_kernel.checkpoint.location import Location
    from helix_kernel.checkpoint.object_store import ObjectPrefix

PART_BYTES = 8 * 2**20
"""Packs are sent in parts of this size; larger ones above 70 GB, since S3 allows 10,000 parts."""

_MOST_PARTS = 9000
_IN_FLIGHT_BYTES = 4 * PART_BYTES


@contextmanager
def new_object_step(at: ObjectPrefix) -> Iterator[NewObjects]:
    """Give a checkpoint to fill; see `Location.new_step`."""
    if isinstance(at.store, HTTPStore):
        raise CheckpointError(
            f"cannot write checkpoint {at}: what is reached by plain http can only be read; write to a "
            "directory, or to a bucket such as s3://bucket/run"
        )
    step = NewObjects(at)
    try:
        with named_errors(f"write checkpoint {at}"):
            yield step
    except BaseException:
        step.withdraw()
        raise


class NewObjects:
    """Objects that become a checkpoint with the last of them, the manifest: a `NewStep`."""

    def __init__(self, at: ObjectPrefix) -> None:
        self._at = at
        self._packs: list[str] = []

    def own_name(self, pack: str) -> str:
        """See `NewStep.own_name`: no other writer has the same."""
        stem, dot, suffix = pack.rpartition(".")
        return f"{stem}-{secrets.token_hex(8)}{dot}{suffix}"

    @contextmanager
    def new_pack(self, name: str, nbytes: int) -> Iterator[Upload]:
        """See `NewStep.new_pack`; what fails is aborted."""
        part = max(PART_BYTES, -(-nbytes // _MOST_PARTS))
        key = self._at.key(name)
        with obstore.open_writer(
            self._at.store, key, buffer_size=part, max_concurrency=max(1, _IN_FLIGHT_BYTES // part)
        ) as file:
            yield Upload(file)
        self._packs.append(key)

    def reuse(self, arrays: dict[str, Any], layouts: dict[str, Layout], previous: Location) -> Reused:  # noqa: ARG002 - the protocol's
        """See `NewStep.reuse`: nothing, since an object store has no hard links."""
        return Reused({}, {})

    def write_manifest(self, content: bytes) -> None:
        """See `NewStep.write_manifest`.

        Raises:
            CheckpointError: Another writer was first.
        """
        packs, self._packs = self._packs, []  # a request without an answer may have been carried out
        try:
            obstore.put(self._at.store, self._at.key(MANIFEST), content, mode="create")
        except AlreadyExistsError:
            if self._at.read_manifest() == content:  # put by a request whose answer was lost
                return
            self._packs = packs
            raise CheckpointError(
                f"{self._at} exists: another writer was first; a checkpoint is never written over"
            ) from None

    def withdraw(self) -> None:
        """Delete packs that no manifest can name."""
        if self._packs:
            with suppress(BaseError, OSError):
                obstore.delete(self._at.store, self._packs)


class Upload:
    """A pack on its way: a `PackSink`.

    Args:
        file: Sends what is written to it in parts, and waits while too many are under way.
    """

    def __init__(self, file: WritableFile) -> None:
        self._file = file
        self.position = 0

    def write(self, content: bytes | memoryview) -> None:
        """See `PackSink.write`."""
        self._file.write(content)
        self.position += len(content)
