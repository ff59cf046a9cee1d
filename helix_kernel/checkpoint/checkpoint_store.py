"""A checkpoint as a read-only store of zarr-python, which then lists and reads it like any hierarchy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.dtype import data_type_registry

from helix_kernel.checkpoint import zarr_dtypes
from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from zarr.core.buffer import Buffer, BufferPrototype

    from helix_kernel.checkpoint.reader import Checkpoint


class CheckpointStore(Store):
    """The keys of an open checkpoint: metadata documents from its manifest, shards from its packs.

    Args:
        checkpoint: Stays open for as long as the store is used.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(read_only=True)
        self._checkpoint = checkpoint
        self._documents = checkpoint.manifest.documents()
        self._shards = checkpoint.manifest.shards()
        register_dtypes()

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the bytes of a key, or some of them; None where there is no such key."""
        if key in self._documents:
            document = self._documents[key].encode()
            start, stop = _span(byte_range, len(document))
            return prototype.buffer.from_bytes(document[start:stop])
        if key not in self._shards:
            return None
        pack, offset, length = self._shards[key]
        start, stop = _span(byte_range, length)
        content = np.empty(stop - start, np.uint8)
        self._checkpoint.read_into(pack, offset + start, content.data, f"key {key!r}")
        return prototype.buffer.from_array_like(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Return several of what `get` returns."""
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        """Whether there is such a key."""
        return key in self._documents or key in self._shards

    async def set(self, key: str, value: Buffer) -> None:  # noqa: ARG002 - zarr's protocol
        """Refuse: a checkpoint never changes."""
        self._refuse()

    async def delete(self, key: str) -> None:  # noqa: ARG002 - zarr's protocol
        """Refuse: a checkpoint never changes."""
        self._refuse()

    async def list(self) -> AsyncIterator[str]:
        """Yield every key."""
        for key in (*self._documents, *self._shards):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yield every key that begins with a prefix."""
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yield what stands directly below a path."""
        parent = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        names: dict[str, None] = {}
        async for key in self.list_prefix(parent):
            names.setdefault(key[len(parent) :].partition("/")[0])
        for name in names:
            yield name

    @property
    def supports_writes(self) -> bool:
        """No."""
        return False

    @property
    def supports_deletes(self) -> bool:
        """No."""
        return False

    @property
    def supports_listing(self) -> bool:
        """Yes."""
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CheckpointStore) and other._checkpoint is self._checkpoint

    def __hash__(self) -> int:
        return hash(id(self._checkpoint))

    def _refuse(self) -> NoReturn:
        raise ArgumentError(f"{self._checkpoint.source} is a checkpoint; it can be read, not changed")


def register_dtypes() -> None:
    """Teach zarr-python bfloat16 and float8; it lists their entry points but does not load them (3.1)."""
    for name in zarr_dtypes.NAMES:
        cls: Any = getattr(zarr_dtypes, name)
        data_type_registry.register(cls._zarr_v3_name, cls)


def _span(byte_range: ByteRequest | None, length: int) -> tuple[int, int]:
    match byte_range:
        case RangeByteRequest(start, end):
            return start, min(end, length)
        case OffsetByteRequest(offset):
            return min(offset, length), length
        case SuffixByteRequest(suffix):
            return max(0, length - suffix), length
    return 0, length
