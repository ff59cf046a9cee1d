"""Reading from the packs of a step on a local disk."""

from __future__ import annotations

import mmap
import os
import weakref
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from helix_kernel.checkpoint.regular_file import open_regular
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from helix_kernel.checkpoint.fetch import Piece


class Readable(Protocol):
    """What bytes of packs can be read from."""

    def read_into(self, pack: str, offset: int, target: memoryview, owner: str) -> None:
        """Fill a buffer from a pack; any number of threads may do so at once.

        Args:
            pack: Its name.
            offset: Where the bytes begin.
            target: A writable buffer of uint8.
            owner: What they are part of, for errors.

        Raises:
            CheckpointError: There are not so many bytes, or they cannot be read.
        """


class Packs(Readable, Protocol):
    """The packs of one step, wherever they are."""

    @property
    def n_readers(self) -> int:
        """How many threads it takes to read as fast as can be."""

    def fetched(self, pieces: Sequence[Piece]) -> Readable:
        """Return what these pieces can be read from: where a request is dear, they are fetched together.

        Raises:
            CheckpointError: As for `read_into`.
        """

    def map(self, pack: str) -> np.ndarray | None:
        """Return a pack as memory that is read when touched, writable by copy; None where impossible."""

    def close(self) -> None:
        """Let go of what is open; maps stay good."""


class PackFiles:
    """The packs in a directory, all opened at once: what is removed later can still be read.

    Args:
        directory: The checkpoint.
        packs: Name → size.
        owner: Says of a pack and a size which array lies beyond that size.

    Raises:
        CheckpointError: A pack is missing, truncated or grown.
    """

    n_readers = min(4, os.cpu_count() or 1)

    def __init__(self, directory: Path, packs: dict[str, int], owner: Callable[[str, int], str]) -> None:
        self._directory = directory
        self._descriptors: dict[str, int] = {}
        self._maps: dict[str, np.ndarray] = {}
        self._finalizer = weakref.finalize(self, _close_all, self._descriptors)
        try:
            for name, size in packs.items():
                self._open(name, size, owner)
        except BaseException:
            self.close()
            raise

    def read_into(self, pack: str, offset: int, target: memoryview, owner: str) -> None:
        """See `Packs.read_into`."""
        while target:
            try:
                n = os.preadv(self._descriptors[pack], [target], offset)
            except OSError as error:
                raise CheckpointError(
                    f"cannot read {self._directory / pack}, part of {owner}: {error.strerror}"
                ) from error
            if not n:
                raise CheckpointError(
                    f"{self._directory} is damaged: {pack}, part of {owner}, is truncated at byte {offset}"
                )
            target = target[n:]
            offset += n

    def fetched(self, pieces: Sequence[Piece]) -> Self:  # noqa: ARG002 - the protocol's
        """See `Packs.fetched`: a read is cheap."""
        return self

    def map(self, pack: str) -> np.ndarray | None:
        """See `Packs.map`; the bytes of a file that is cut short later cannot be touched any more."""
        if pack not in self._maps:
            memory = mmap.mmap(self._descriptors[pack], 0, access=mmap.ACCESS_COPY)
            self._maps[pack] = np.frombuffer(memory, np.uint8)
        return self._maps[pack]

    def close(self) -> None:
        """See `Packs.close`."""
        self._finalizer()

    def _open(self, name: str, size: int, owner: Callable[[str, int], str]) -> None:
        try:
            self._descriptors[name] = open_regular(self._directory / name)
        except FileNotFoundError:
            if not self._directory.exists():
                raise CheckpointError(f"{self._directory} was removed while it was being opened") from None
            raise CheckpointError(
                f"{self._directory} is damaged: {name}, part of {owner(name, 0)}, is missing"
            ) from None
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self._directory / name}, part of {owner(name, 0)}: {error.strerror}"
            ) from error
        found = os.fstat(self._descriptors[name]).st_size
        if found != size:
            lost = f"part of {owner(name, found)}, has" if found < size else "has"
            raise CheckpointError(
                f"{self._directory} is damaged: {name}, {lost} {found} bytes of {size} "
                f"({'truncated' if found < size else 'grown'})"
            )


def _close_all(descriptors: dict[str, int]) -> None:
    while descriptors:
        os.close(descriptors.popitem()[1])
