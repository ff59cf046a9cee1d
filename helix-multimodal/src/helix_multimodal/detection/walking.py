"""Goes through folders and archives, file after file, in memory that is bounded and never on disk."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import attrs

from helix_kernel.errors import DataError
from helix_multimodal.detection.files import detect_head
from helix_multimodal.detection.finding import HEAD, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from helix_kernel.modality import Modality

    Contents = Iterator[tuple[str, bytes | str]]
    """Names with bytes, or with the reason why there are none."""

_OPEN_PACKED: dict[str, Callable[[BinaryIO, str], Any]] = {
    "gzip": gzip.open,
    "bzip2": bz2.open,
    "xz": lzma.open,
}
_EXTENSIONS = (".gz", ".bz2", ".xz")
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    RecursionError,
    OverflowError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
)


@attrs.frozen
class Limits:
    """How far a walk goes.

    Attributes:
        max_files: Files in all; the walk ends there.
        max_depth: Archives within archives; deeper ones are named and not opened.
        max_bytes: Bytes of one member of an archive, which is unpacked into memory.
        max_unpacked: Bytes that all of an archive may unpack to, nested ones included.
    """

    max_files: int = 100_000
    max_depth: int = 3
    max_bytes: int = 1 << 30
    max_unpacked: int = 1 << 34


@attrs.frozen(eq=False)
class Member:
    """A file in a folder or in an archive.

    Attributes:
        path: Where it is; what is within an archive is named ``a.zip!b/c.png``, as the archive has it, and is
            nothing to open.
        size: Its bytes, unpacked.
        finding: What it is.
        source: Its path; or, in an archive, all its bytes as an open file; None where it cannot be read.
    """

    path: str
    size: int
    finding: Finding
    source: Path | BinaryIO | None


def walk(
    path: str | Path, *, limits: Limits | None = None, modalities: Mapping[str, Modality] | None = None
) -> Iterator[Member]:
    """Yield every file below a folder, or the one file, and those in archives; sorted by name in a folder.

    Nothing is written to disk. Links to files are followed in folders and never in archives, links to
    folders are not; what is no plain file (a pipe, a device) is named but not opened. An archive that is
    damaged or goes over a limit gives a member of kind ``unknown`` whose reason says so, after what was read.

    Raises:
        DataError: There is no such path.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} is not there")
    limits = limits or Limits()
    for count, member in enumerate(_Walker(limits, modalities or {}).tree(path)):
        if count == limits.max_files:
            yield _unread(str(path), f"there are more files than max_files={limits.max_files:,}")
            return
        yield member


@attrs.frozen
class _Walker:
    limits: Limits
    modalities: Mapping[str, Modality]

    def tree(self, path: Path) -> Iterator[Member]:
        if not path.is_dir():
            yield from self._path(path)
            return
        for folder, folders, names in os.walk(path):
            folders.sort()
            for name in sorted(names):
                yield from self._path(Path(folder) / name)

    def _path(self, path: Path) -> Iterator[Member]:
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                yield _unread(str(path), "no plain file, such as a pipe or a device", "other")
                return
            with path.open("rb") as file:
                finding = detect_head(file.read(HEAD + 1), path.name, modalities=self.modalities)
                yield Member(str(path), status.st_size, finding, path)
                if finding.kind == "archive":
                    file.seek(0)
                    budget = _Budget(self.limits.max_bytes, self.limits.max_unpacked)
                    yield from self._within(file, str(path), finding.format, 1, budget)
        except OSError as error:
            yield _unread(str(path), f"it cannot be read: {error.strerror or error}")

    def _within(self, file: BinaryIO, where: str, kind: str, depth: int, budget: _Budget) -> Iterator[Member]:
        """Yield what is in an archive; and last, where it is damaged or too large, a member that says so."""
        if depth > self.limits.max_depth:
            yield _unread(where, f"archives nested more than max_depth={self.limits.max_depth} deep")
            return
        unpack = {"zip": _zip, "tar": _tar}.get(kind)
        contents = unpack(file, budget) if unpack else _packed(file, where, kind, budget)
        try:
            for name, data in contents:
                yield from self._member(f"{where}!{name}", data, depth, budget)
        except _TooMuchError:
            yield _unread(where, f"it unpacks to more than max_unpacked={self.limits.max_unpacked:,} bytes")
        except _BROKEN as error:
            yield _unread(where, f"the {kind} archive is damaged or not supported: {error}")

    def _member(self, path: str, data: bytes | str, depth: int, budget: _Budget) -> Iterator[Member]:
        if isinstance(data, str):
            yield _unread(path, data, "other")
            return
        name = path.rpartition("!")[2].rpartition("/")[2]
        finding = detect_head(data[: HEAD + 1], name, modalities=self.modalities)
        yield Member(path, len(data), finding, io.BytesIO(data))
        if finding.kind == "archive":
            yield from self._within(io.BytesIO(data), path, finding.format, depth + 1, budget)


class _TooMuchError(Exception):
    """An archive unpacks to more than it may."""


class _Readable(Protocol):
    def read(self, n: int, /) -> bytes: ...


@attrs.define
class _Budget:
    """How many bytes one member may have, and how many may still be unpacked."""

    one: int
    left: int

    def read(self, file: _Readable) -> bytes | str:
        """Return a whole member, or why it is not read."""
        data = file.read(min(self.one, self.left) + 1)
        self.spend(len(data))
        return data if len(data) <= self.one else f"it has more than max_bytes={self.one:,} bytes"

    def spend(self, n_bytes: int) -> None:
        self.left -= n_bytes
        if self.left < 0:
            raise _TooMuchError


@attrs.frozen
class _Counted:
    """A stream whose bytes count against a budget."""

    stream: _Readable
    budget: _Budget

    def read(self, n: int) -> bytes:
        data = self.stream.read(n)
        self.budget.spend(len(data))
        return data


def _zip(file: BinaryIO, budget: _Budget) -> Contents:
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            if not entry.is_dir():
                yield entry.filename, _zipped(archive, entry, budget)


def _zipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, budget: _Budget) -> bytes | str:
    if entry.flag_bits & 1:
        return "it is encrypted"
    try:
        with archive.open(entry) as member:
            return budget.read(member)
    except _BROKEN as error:
        return f"it is damaged or not supported: {error}"


def _tar(file: _Readable, budget: _Budget) -> Contents:
    # Bytes count as the stream gives them, those of members that are skipped among them; what a sparse
    # member is filled up with does not come from the stream, so each member has a limit of its own.
    stream: Any = _Counted(file, budget)
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            member = archive.extractfile(entry) if entry.isreg() else None
            if member is not None:
                yield entry.name, _Budget(budget.one, budget.one + 1).read(member)
            elif not entry.isdir():
                yield entry.name, "a link or a device, which is not followed"


def _packed(file: BinaryIO, where: str, kind: str, budget: _Budget) -> Contents:
    """Yield the one file that is compressed; or, where that is a tar archive, the files in it."""
    with _OPEN_PACKED[kind](file, "rb") as stream:
        if detect_head(stream.peek(HEAD)[:HEAD]).format == "tar":
            yield from _tar(stream, budget)
            return
        name = where.rpartition("/")[2].rpartition("!")[2]
        ending = next((end for end in _EXTENSIONS if name.endswith(end)), "")
        yield name.removesuffix(ending), budget.read(stream)


def _unread(path: str, reason: str, kind: str = "unknown") -> Member:
    return Member(path, 0, Finding(kind, "", 0.0, reason), None)
