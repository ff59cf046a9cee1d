"""Tar archives, plain or compressed by gzip: members are documents, as WebDataset lays them out."""

from __future__ import annotations

import tarfile
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import attrs

from helix_data.documents.document import START, Corrupt, Document, Position, open_bytes, until_damage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from helix_data.documents.document import Record


class _Member(NamedTuple):
    name: str
    data: bytes
    after: Position

    @property
    def key(self) -> str:
        """The sample that it belongs to: its path up to the first dot of its last part."""
        folder, slash, name = self.name.rpartition("/")
        return f"{folder}{slash}{name.partition('.')[0]}"


@attrs.frozen
class TarMembers:
    """Each regular file of the archive is a document, or each sample's file of one suffix.

    A sample is a run of members whose names are the same up to the first dot after the last slash.

    Args:
        suffix: What follows that dot in the names of the documents, such as ``txt``; None: every member is
            a document.
    """

    suffix: str | None

    def read(self, path: Path, start: Position = START) -> Iterator[Record]:
        """Yield a record for each member, or with a suffix for each sample."""
        return until_damage(self._records(path, start), "member", start)

    def _records(self, path: Path, start: Position) -> Iterator[Record]:
        with open_bytes(path) as file:
            members = _members(file, start, self.suffix)
            if self.suffix is None:
                for name, data, after in members:
                    yield Document(data, f"member {name}", after)
                return
            for key, sample in groupby(members, key=lambda member: member.key):
                yield self._of_sample(key, list(sample))

    def _of_sample(self, key: str, sample: list[_Member]) -> Record:
        after = sample[-1].after
        wanted = f"{key}.{self.suffix}"
        for member in sample:
            if member.name == wanted:
                return Document(member.data, f"member {wanted}", after)
        names = ", ".join(member.name for member in sample)
        return Corrupt(f"sample {key}", f"has no member {wanted!r}; it has {names}", after)


def _members(file: BinaryIO, start: Position, suffix: str | None) -> Iterator[_Member]:
    """Yield the regular files of an archive; contents only where the suffix is that of documents.

    Raises:
        TarError: The archive is damaged, or ends without its mark.
    """
    file.seek(start.offset)
    number = start.number
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the file is closed by who opened it
    while (header := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # they would pile up, one object a member
        number += 1
        if header.isreg():
            wanted = suffix is None or header.name.endswith(f".{suffix}")
            data = _contents(archive, header) if wanted else b""
            yield _Member(header.name, data, Position(archive.offset, number))
    # The library takes a header that is damaged, or cut off, for the end.
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"no header and no end mark at byte {archive.offset}")


def _contents(archive: tarfile.TarFile, header: tarfile.TarInfo) -> bytes:
    try:
        with archive.extractfile(header) or _nothing(header) as file:
            return file.read()
    except tarfile.ReadError as error:
        raise tarfile.ReadError(f"member {header.name} is cut off ({error})") from error


def _nothing(header: tarfile.TarInfo) -> BinaryIO:
    raise tarfile.ReadError(f"member {header.name} has no contents")
