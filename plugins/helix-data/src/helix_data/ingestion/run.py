"""An ingestion from its files to its index."""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Protocol

import attrs

from helix_data.ingestion.chunks import Job
from helix_data.ingestion.duplicates import repeated, without
from helix_data.ingestion.journal import FileCount, Journal, Task
from helix_data.ingestion.pool import do_all
from helix_data.shards.index import (
    INDEX,
    SKIPPED,
    SPLITS,
    Index,
    IngestedFile,
    IngestOptions,
    load_index,
    sizes,
)
from helix_data.shards.writing import cannot_write, write_atomically
from helix_data.sources import files_of_paths
from helix_kernel.errors import DataError, HelixError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from helix_data.byte_stream import FileSegment
    from helix_data.ingestion.chunks import Advance, OnError
    from helix_data.ingestion.journal import Chunk
    from helix_data.shards.index import Shard, Split


class Watcher(Protocol):
    """What is told how an ingestion gets on."""

    def begin(self, *, files: int, size: int, done: int) -> None:
        """It reads so many files of so many bytes, of which so many are done from before."""
        ...

    def advance(self, advance: Advance) -> None:
        """Something was read."""
        ...

    def note(self, text: str) -> None:
        """Something else is to be said."""
        ...


@attrs.frozen(kw_only=True)
class Tolerance:
    """What corrupt records do.

    Args:
        on_error: ``raise``: the first ends the ingestion; ``skip``: they are counted, named and left out.
        max_skipped: How many may be skipped before the ingestion ends all the same.
    """

    on_error: OnError = "raise"
    max_skipped: int = 1000

    def check(self, skipped: int, *said: str) -> None:
        """Raise `DataError` where more are skipped than may be; it says what is said of the last."""
        if skipped > self.max_skipped:
            raise DataError(
                f"{skipped} corrupt records, and at most {self.max_skipped} may be skipped (--max-skipped); "
                f"the last: {said[-1]}"
            )


def ingest(
    folder: Path,
    paths: Sequence[str],
    *,
    options: IngestOptions | None = None,
    tolerance: Tolerance | None = None,
    workers: int = 1,
    restart: bool = False,
    watcher: Watcher,
) -> Index:
    """Make a folder of shards of the documents in files; the same for any number of workers.

    What a killed ingestion had finished is not read again, and the result is the same. A folder that is
    finished already, of the same files, is left as it is.

    Args:
        folder: Where shards go: new, empty, or of an ingestion that is not finished.
        paths: Files, folders and globs, see `helix_data.sources.open_paths`.
        options: What decides the shards.
        tolerance: What corrupt records do.
        workers: Processes that read.
        restart: Whether what an earlier ingestion left in the folder is removed first.
        watcher: Is told how it gets on.

    Raises:
        DataError: A path or a record is wrong, too many are skipped, no document is found, or the folder
            holds something else.
        HelixError: The shards cannot be written, or a worker died.
    """
    options, tolerance = options or IngestOptions(), tolerance or Tolerance()
    files = files_of_paths(paths)
    with _claimed(folder) as journal:
        if restart:
            journal.discard()
        if (folder / INDEX).exists():
            return _finished(folder, options, files, journal)
        tasks = _tasks(files, options.shard_bytes)
        journal.begin(options, tasks)
        _read_all(
            Job(folder=folder, options=options, on_error=tolerance.on_error),
            tasks,
            tolerance,
            workers,
            watcher,
        )
        chunks = {task.number: journal.chunks(task) for task in tasks}
        index = _index(options, tasks, chunks, _unique(journal, options, chunks, watcher))
        _write_skipped(folder, chunks)
        write_atomically(folder / INDEX, index.to_json().encode())
        journal.finish([*index.train, *index.validation])
    return index


@contextmanager
def _claimed(folder: Path) -> Iterator[Journal]:
    """Make the folder, or take one that holds nothing but shards, for this process alone."""
    journal = Journal(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / INDEX).exists() and not journal.path.exists():
            raise DataError(f"{folder}: is not empty, and holds no shards; name a new folder")
        held = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made or read: {error.strerror}") from error
    try:
        _lock(folder, held)
        yield journal
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        os.close(held)


def _lock(folder: Path, held: int) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise DataError(f"{folder}: another ingestion is at work here; wait for it, or stop it") from error


def _tasks(files: Sequence[FileSegment], size: int) -> list[Task]:
    """Lay files in order into tasks of at least so many bytes each: they depend on nothing else."""
    tasks: list[Task] = []
    group: list[tuple[FileSegment, int]] = []
    for number, file in enumerate(files, start=1):
        group.append((file, file.path.stat().st_mtime_ns))
        if sum(member.size for member, _ in group) >= size or number == len(files):
            tasks.append(Task(number=len(tasks), first=number - len(group), files=tuple(group)))
            group = []
    return tasks


def _read_all(job: Job, tasks: Sequence[Task], tolerance: Tolerance, workers: int, watcher: Watcher) -> None:
    """Do what is not done of the tasks, watching how much is skipped."""
    journal = Journal(job.folder)
    done = {task.number: journal.chunks(task) for task in tasks}
    skipped = sum(len(chunk.skipped) for chunks in done.values() for chunk in chunks)
    sizes_of = {task.number: sum(file.size for file, _ in task.files) for task in tasks}
    watcher.begin(
        files=sum(len(task.files) for task in tasks),
        size=sum(sizes_of.values()),
        done=sum(_size_read(task, done[task.number]) for task in tasks),
    )
    left = [task for task in tasks if not done[task.number] or done[task.number][-1].after is not None]
    del done
    tolerance.check(skipped, "as before")
    with closing(do_all(job, left, workers)) as advances:
        for advance in advances:
            watcher.advance(advance)
            skipped += len(advance.skipped)
            tolerance.check(skipped, *advance.skipped)


def _size_read(task: Task, chunks: Sequence[Chunk]) -> int:
    """Return how many bytes of a task's files were read by finished chunks, as far as is known."""
    if not chunks:
        return 0
    after = chunks[-1].after
    if after is None:
        return sum(file.size for file, _ in task.files)
    current = min(after.position.offset, task.files[after.file][0].size)
    return sum(file.size for file, _ in task.files[: after.file]) + current


def _unique(
    journal: Journal, options: IngestOptions, chunks: dict[int, list[Chunk]], watcher: Watcher
) -> dict[Split, list[Shard]]:
    """Return the shards of each split, in order, and where it was asked for without duplicates."""
    found: dict[Split, list[Shard]] = {}
    for split in SPLITS:
        named = (chunk.shards.get(split) for number in sorted(chunks) for chunk in chunks[number])
        shards = [shard for shard in named if shard is not None]
        if options.dedup and shards:
            watcher.note(f"looking for duplicates among {sizes(shards)[0]:,} documents of {split}")
            masks = repeated([journal.hashes(shard.name) for shard in shards])
            again = (
                without(journal.folder, shard, mask) if mask.any() else shard
                for shard, mask in zip(shards, masks, strict=True)
            )
            shards = [shard for shard in again if shard is not None]
        found[split] = shards
    return found


def _index(
    options: IngestOptions,
    tasks: Sequence[Task],
    chunks: dict[int, list[Chunk]],
    shards: dict[Split, list[Shard]],
) -> Index:
    files = tuple(
        _ingested(file, [chunk.counts.get(number, FileCount()) for chunk in chunks[task.number]])
        for task in tasks
        for number, (file, _) in enumerate(task.files)
    )
    index = Index(
        options=options,
        files=files,
        train=tuple(shards["train"]),
        validation=tuple(shards["validation"]),
        duplicates=sum(file.documents for file in files) - sizes(shards["train"] + shards["validation"])[0],
    )
    if not index.train and not index.validation:
        raise DataError(
            f"no document was found in {len(files)} files: {index.skipped} corrupt records, "
            f"{sum(file.empty for file in files)} empty documents"
        )
    return index


def _ingested(file: FileSegment, counts: Sequence[FileCount]) -> IngestedFile:
    sha256 = next(count.sha256 for count in counts if count.sha256 is not None)
    return IngestedFile(
        name=str(file.path),
        bytes=file.size,
        sha256=sha256,
        documents=sum(count.documents for count in counts),
        empty=sum(count.empty for count in counts),
        skipped=sum(count.skipped for count in counts),
    )


def _write_skipped(folder: Path, chunks: dict[int, list[Chunk]]) -> None:
    """Name every record that was skipped, a JSON object a line."""
    named = [record for number in sorted(chunks) for chunk in chunks[number] for record in chunk.skipped]
    if named:
        lines = (
            json.dumps({"file": name, "place": place, "reason": reason}) + "\n"
            for name, place, reason in named
        )
        write_atomically(folder / SKIPPED, "".join(lines).encode())


def _finished(folder: Path, options: IngestOptions, files: Sequence[FileSegment], journal: Journal) -> Index:
    """Return the index of a folder that is finished already, if it was made of these files so."""
    index = load_index(folder)
    made_of = [(file.name, file.bytes, file.sha256) for file in index.files]
    if index.options != options or [name for name, _, _ in made_of] != [str(file.path) for file in files]:
        raise HelixError(
            f"{folder}: holds finished shards of other files or options; name another folder, or give "
            "--restart to make them anew"
        )
    for file, (_, size, sha256) in zip(files, made_of, strict=True):
        if file.size != size or _sha256(file) != sha256:
            raise HelixError(
                f"{folder}: holds finished shards, but {file.path} has changed since; give --restart"
            )
    journal.finish([*index.train, *index.validation])
    return index


def _sha256(file: FileSegment) -> str:
    import hashlib

    with file.path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
