"""Reads a task's files into shards, a chunk at a time; what is finished is not read again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, NamedTuple

import attrs

from helix_data.documents.document import START, Corrupt
from helix_data.ingestion.journal import Chunk, FileCount, Journal, Place
from helix_data.shards.index import SPLITS, IngestOptions
from helix_data.shards.writing import ShardWriter, cannot_write, write_atomically
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from helix_data.byte_stream import FileSegment
    from helix_data.documents.document import Position, Record
    from helix_data.ingestion.journal import Task
    from helix_data.shards.index import Split

OnError = Literal["raise", "skip"]

_TERMINATORS = {"none": b"", "newline": b"\n", "nul": b"\0"}
# What is read between two reports of how far it is.
_REPORT_BYTES = 1 << 22
_PIECE = 1 << 20


class Advance(NamedTuple):
    """What was done since the last one.

    Attributes:
        read: Bytes of files; what is known of a compressed one is when it is finished.
        documents: Documents found.
        skipped: Corrupt records, each with its file, its place and the reason, in words.
    """

    read: int = 0
    documents: int = 0
    skipped: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class Job:
    """What every task is done with.

    Args:
        folder: Where shards go.
        options: What decides them.
        on_error: What a corrupt record does: ``raise`` ends the ingestion, ``skip`` counts it.
    """

    folder: Path
    options: IngestOptions
    on_error: OnError

    def do(self, task: Task) -> Iterator[Advance]:
        """Read a task's files from where its last finished chunk ended.

        Raises:
            DataError: A record is corrupt and none may be, or a file cannot be read or has changed.
            HelixError: The shards cannot be written.
        """
        journal = Journal(self.folder)
        done = journal.chunks(task)
        place = done[-1].after if done else Place()
        number = len(done)
        try:
            while place is not None:
                place = yield from _ChunkWriter(self, task, number).write(place)
                number += 1
        except OSError as error:
            raise cannot_write(self.folder, error) from error


class _ChunkWriter:
    """Writes one chunk: documents until the shards of both splits hold enough together."""

    def __init__(self, job: Job, task: Task, number: int) -> None:
        self._job, self._task, self._number = job, task, number
        splits = SPLITS if job.options.validation_fraction else SPLITS[:1]
        self._writers = {split: ShardWriter(job.folder, task.shard_name(split, number)) for split in splits}
        self._hashes = {split: bytearray() for split in splits}
        self._end = _TERMINATORS[job.options.terminator]
        self._counts: dict[int, FileCount] = {}
        self._skipped: list[tuple[str, str, str]] = []

    def write(self, start: Place) -> Generator[Advance, None, Place | None]:
        """Read from a place on; return where the next chunk begins."""
        try:
            after = yield from self._read(start)
            self._close(after)
        finally:
            for writer in self._writers.values():
                writer.abandon()
        return after

    def _read(self, start: Place) -> Generator[Advance, None, Place | None]:
        for number in range(start.file, len(self._task.files)):
            position = start.position if number == start.file else START
            after = yield from self._read_file(number, position)
            if after is not None:
                return Place(number, after)
        return None

    def _read_file(self, number: int, position: Position) -> Generator[Advance, None, Position | None]:
        """Read a file; return where it is left because the shards are full, or None at its end."""
        file, changed = self._task.files[number]
        count = self._counts.setdefault(number, FileCount())
        seen = min(position.offset, file.size)
        told, held = seen, 0
        for record in _records(self._job.options.of(file.path.name).read(file.path, position), file):
            seen = min(record.after.offset, file.size)
            if isinstance(record, Corrupt):
                yield Advance(skipped=(self._skip(file, count, record),))
                continue
            self._add(record.data, count)
            held += 1
            if self._is_full():
                yield Advance(seen - told, held)
                return record.after
            if seen - told >= _REPORT_BYTES:
                yield Advance(seen - told, held)
                told, held = seen, 0
        count.sha256 = _digest(file, changed)
        yield Advance(file.size - told, held)
        return None

    def _add(self, data: bytes, count: FileCount) -> None:
        if not data:
            count.empty += 1
            return
        count.documents += 1
        digest = document_hash(data)
        split = split_of(digest, self._job.options)
        self._writers[split].add(data + self._end)
        if self._job.options.dedup:
            self._hashes[split] += digest

    def _skip(self, file: FileSegment, count: FileCount, record: Corrupt) -> str:
        said = f"{file.path}: {record.place}: {record.reason}"
        if self._job.on_error == "raise":
            raise DataError(
                f"{said}; mend the file, or leave corrupt records out with --on-error skip; shards that are "
                "finished are kept"
            )
        count.skipped += 1
        self._skipped.append((str(file.path), record.place, record.reason))
        return said

    def _is_full(self) -> bool:
        return sum(writer.nbytes for writer in self._writers.values()) >= self._job.options.shard_bytes

    def _close(self, after: Place | None) -> None:
        journal = Journal(self._job.folder)
        for split, hashes in self._hashes.items():
            if hashes:
                write_atomically(journal.hashes(self._task.shard_name(split, self._number)), bytes(hashes))
        chunk = Chunk(
            shards={split: writer.close() for split, writer in self._writers.items()},
            counts=self._counts,
            skipped=tuple(self._skipped),
            after=after,
        )
        journal.add(self._task, self._number, chunk)


def document_hash(data: bytes) -> bytes:
    """Return the 16 bytes by which a document is known: BLAKE2b, which nobody can make two agree in."""
    return hashlib.blake2b(data, digest_size=16).digest()


def split_of(digest: bytes, options: IngestOptions) -> Split:
    """Return the split of a document: it depends on its contents, the salt and the fraction alone.

    A larger fraction takes documents from the training split, and gives it none.

    Args:
        digest: Its `document_hash`.
        options: With the salt and the fraction.
    """
    if not options.validation_fraction:
        return "train"
    drawn = hashlib.blake2b(digest + options.salt.encode(), digest_size=8).digest()
    share = int.from_bytes(drawn, "little") / 2**64
    return "validation" if share < options.validation_fraction else "train"


def _records(records: Iterator[Record], file: FileSegment) -> Iterator[Record]:
    try:
        yield from records
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read: {error.strerror or error}") from error


def _digest(file: FileSegment, changed: int) -> str:
    """Return the SHA-256 of a file that was read just now, and is the one that was to be read."""
    digest = hashlib.sha256()
    try:
        with file.path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
            status = file.path.stat()
    except OSError as error:
        raise DataError(f"{file.path}: cannot be read: {error.strerror}") from error
    if (status.st_size, status.st_mtime_ns) != (file.size, changed):
        raise DataError(f"{file.path}: was changed while it was read; begin anew with --restart")
    return digest.hexdigest()
