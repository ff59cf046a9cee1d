"""What an ingestion has finished, on disk: each chunk's shards, and where reading goes on."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import attrs

from helix_data.documents.document import START, Position
from helix_data.shards.index import INDEX, SKIPPED, SPLITS, IngestOptions, Shard
from helix_data.shards.writing import write_atomically
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helix_data.byte_stream import FileSegment
    from helix_data.shards.index import Split

_FOLDER = ".ingest"


@attrs.frozen(kw_only=True)
class Task:
    """Files that one process reads, one after another.

    Args:
        number: From 0, in the order of the files.
        first: Number of its first file among all.
        files: The files, and when each was changed last (nanoseconds).
    """

    number: int
    first: int
    files: tuple[tuple[FileSegment, int], ...]

    def shard_name(self, split: Split, chunk: int) -> str:
        """Return the name of a chunk's shard."""
        return f"{split}-{self.number:06}-{chunk:06}"


@attrs.frozen
class Place:
    """Where reading goes on.

    Args:
        file: Number of the file among those of the task.
        position: In the file.
    """

    file: int = 0
    position: Position = START


@attrs.define
class FileCount:
    """What a chunk found in a file; `sha256` where the chunk read it to its end."""

    documents: int = 0
    empty: int = 0
    skipped: int = 0
    sha256: str | None = None


@attrs.frozen(kw_only=True)
class Chunk:
    """A part of a task that is finished: at most one shard of each split.

    Args:
        shards: By split; None where no document went there.
        counts: What each file held, by its number in the task.
        skipped: What is said of each corrupt record: the file's name, the place and the reason.
        after: Where the next chunk begins; None where the task is finished.
    """

    shards: dict[Split, Shard | None]
    counts: dict[int, FileCount]
    skipped: tuple[tuple[str, str, str], ...]
    after: Place | None


class Journal:
    """The records of an ingestion that is not finished.

    Args:
        folder: The folder of shards.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / _FOLDER

    def begin(self, options: IngestOptions, tasks: Sequence[Task]) -> None:
        """Note what is ingested, or check that it is what was begun here before.

        Raises:
            DataError: It is not.
        """
        files = [[str(file.path), file.size, changed] for task in tasks for file, changed in task.files]
        plan = {"options": attrs.asdict(options), "files": files}
        path = self.path / "plan.json"
        begun = _loaded(path)
        if begun is None:
            self.path.mkdir(exist_ok=True)
            write_atomically(path, json.dumps(plan).encode())
        elif begun != plan:
            raise DataError(
                f"{self.folder}: an ingestion was begun here and is not finished, but "
                f"{_differs(begun, plan)}; give what was given then to go on with it, --restart to begin "
                "anew, or another folder"
            )

    def add(self, task: Task, number: int, chunk: Chunk) -> None:
        """Note that a chunk, whose shards are on the disk, is finished."""
        write_atomically(self._chunk(task, number), json.dumps(attrs.asdict(chunk)).encode())

    def chunks(self, task: Task) -> list[Chunk]:
        """Return the chunks of a task that are finished, in order."""
        found: list[Chunk] = []
        while (table := _loaded(self._chunk(task, len(found)))) is not None:
            found.append(_chunk(table))
        return found

    def hashes(self, shard: str) -> Path:
        """Return where the 16-byte hashes of a shard's documents are kept meanwhile."""
        return self.path / f"{shard}.hashes"

    def finish(self, kept: Sequence[Shard]) -> None:
        """Remove all that the index does not name."""
        named = {name for shard in kept for name in shard.files}
        for path in self.folder.iterdir():
            if _is_of_shards(path.name) and path.name not in named:
                path.unlink()
        shutil.rmtree(self.path, ignore_errors=True)

    def discard(self) -> None:
        """Remove all that an ingestion, finished or not, has put into the folder."""
        (self.folder / INDEX).unlink(missing_ok=True)
        (self.folder / SKIPPED).unlink(missing_ok=True)
        self.finish([])

    def _chunk(self, task: Task, number: int) -> Path:
        return self.path / f"chunk-{task.number:06}-{number:06}.json"


def _is_of_shards(name: str) -> bool:
    begins = (*(f"{split}-" for split in SPLITS), f"{INDEX}.", f"{SKIPPED}.")
    return name.removeprefix(".").startswith(begins) and name.endswith((".bytes", ".ends", ".partial"))


def _loaded(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None


def _chunk(table: Any) -> Chunk:
    after = table["after"]
    return Chunk(
        shards={split: None if shard is None else Shard(**shard) for split, shard in table["shards"].items()},
        counts={int(number): FileCount(**count) for number, count in table["counts"].items()},
        skipped=tuple((name, place, reason) for name, place, reason in table["skipped"]),
        after=None if after is None else Place(after["file"], Position(*after["position"])),
    )


def _differs(begun: Any, plan: Any) -> str:
    """Return in words what is not as it was."""
    for name, value in plan["options"].items():
        if begun["options"].get(name) != value:
            return f"{name} was {begun['options'].get(name)!r} and is {value!r} now"
    before, now = ({name: tuple(rest) for name, *rest in files["files"]} for files in (begun, plan))
    for name in {**before, **now}:
        if name not in now:
            return f"{name} was among its files"
        if name not in before:
            return f"{name} was not among its files"
        if before[name] != now[name]:
            return f"{name} has changed since"
    return "its files were given in another order"
