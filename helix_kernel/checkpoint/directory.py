"""Checkpoints in directories of a local file system."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.checkpoint.durable import new_directory, remove_directory, sweep, write_file
from helix_kernel.checkpoint.lock import WriterLock
from helix_kernel.checkpoint.manifest import MANIFEST, read_manifest
from helix_kernel.checkpoint.pack import PackWriter
from helix_kernel.checkpoint.pack_files import PackFiles
from helix_kernel.checkpoint.reuse import Reused, reuse
from helix_kernel.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helix_kernel.checkpoint.layout import Layout
    from helix_kernel.checkpoint.location import Location


@attrs.frozen
class Directory:
    """A directory: a `Location`."""

    place: Path

    def is_checkpoint(self) -> bool:
        """See `Location.is_checkpoint`."""
        try:
            return (self.place / MANIFEST).exists()
        except OSError:  # may not be looked at: whoever lists the place is told
            return False

    def state(self) -> str:
        """See `Location.state`."""
        if self.place.is_dir():
            return "holds no checkpoint"
        return "is a file" if self.place.exists() else "does not exist"

    def read_manifest(self) -> bytes:
        """See `Location.read_manifest`."""
        return read_manifest(self.place)

    def open_packs(self, packs: dict[str, int], owner: Callable[[str, int], str]) -> PackFiles:
        """See `Location.open_packs`."""
        return PackFiles(self.place, packs, owner)

    @contextmanager
    def new_step(self) -> Iterator[NewDirectory]:
        """See `Location.new_step`."""
        with new_directory(self.place) as hidden:
            yield NewDirectory(hidden)

    def run(self) -> DirectoryRun:
        """See `Location.run`."""
        return DirectoryRun(self.place)


@attrs.frozen
class NewDirectory:
    """A hidden directory that becomes a checkpoint: a `NewStep`."""

    directory: Path

    def own_name(self, pack: str) -> str:
        """See `NewStep.own_name`; the directory is this step's alone."""
        return pack

    def new_pack(self, name: str, nbytes: int) -> PackWriter:
        """See `NewStep.new_pack`."""
        return PackWriter(self.directory / name, nbytes)

    def reuse(self, arrays: dict[str, Any], layouts: dict[str, Layout], previous: Location) -> Reused:
        """See `NewStep.reuse`."""
        assert isinstance(previous.place, Path)
        return reuse(arrays, layouts, previous.place, self.directory)

    def write_manifest(self, content: bytes) -> None:
        """See `NewStep.write_manifest`."""
        write_file(self.directory / MANIFEST, content)


class DirectoryRun:
    """The directories in a directory, of which one process at a time may change any: a `Run`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = WriterLock(directory)

    def names(self) -> list[str]:
        """See `Run.names`."""
        try:
            return [entry.name for entry in self._directory.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CheckpointError(f"cannot list {self._directory}: {error.strerror}") from error

    def claim(self) -> list[str]:
        """See `Run.claim`."""
        self._lock.acquire()
        sweep(self._directory)
        return self.names()

    def remove(self, names: list[str]) -> None:
        """See `Run.remove`."""
        for name in names:
            if (self._directory / name).exists():  # else someone was faster
                remove_directory(self._directory / name)

    def release(self) -> None:
        """See `Run.release`."""
        self._lock.release()
