"""The index of a folder of shards: what it holds, of what it was made, and how to tell that it is whole."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs
from attrs.validators import and_, ge, instance_of, matches_re

from helix_data.documents.formats import FormatOptions
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

INDEX = "index.json"
SKIPPED = "skipped.jsonl"
VERSION = 1
_FORM = "helix-byte-shards"
_NAME = r"[A-Za-z0-9][A-Za-z0-9-]*"
_DIGEST = "[0-9a-f]{64}"

Split = Literal["train", "validation"]
SPLITS: tuple[Split, ...] = ("train", "validation")


def _at_least(least: int) -> Any:
    return and_(instance_of(int), ge(least))


@attrs.frozen(kw_only=True)
class Shard:
    """A pair of files: ``NAME.bytes`` with documents end to end, ``NAME.ends`` with the ends of each.

    Args:
        name: Of both files, without what follows the dot.
        documents: How many, at least 1. ``NAME.ends`` holds as many uint64, little-endian: the offset in
            ``NAME.bytes`` at which each document ends.
        bytes: Size of ``NAME.bytes``.
        sha256: Of ``NAME.bytes``, in hexadecimal.
        ends_sha256: Of ``NAME.ends``.
    """

    name: str = attrs.field(validator=matches_re(_NAME))
    documents: int = attrs.field(validator=_at_least(1))
    bytes: int = attrs.field(validator=_at_least(1))
    sha256: str = attrs.field(validator=matches_re(_DIGEST))
    ends_sha256: str = attrs.field(validator=matches_re(_DIGEST))

    @property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and SHA-256 of each of its files, by their names."""
        return {
            f"{self.name}.bytes": (self.bytes, self.sha256),
            f"{self.name}.ends": (8 * self.documents, self.ends_sha256),
        }


@attrs.frozen(kw_only=True)
class IngestedFile:
    """A file that was read.

    Args:
        name: Its path as it was given.
        bytes: Its size.
        sha256: Of its contents, in hexadecimal.
        documents: Documents found in it, before duplicates were left out.
        empty: Documents without a byte, which are left out.
        skipped: Records that were corrupt, and are named in ``skipped.jsonl``.
    """

    name: str = attrs.field(validator=instance_of(str))
    bytes: int = attrs.field(validator=_at_least(0))
    sha256: str = attrs.field(validator=matches_re(_DIGEST))
    documents: int = attrs.field(validator=_at_least(0))
    empty: int = attrs.field(validator=_at_least(0))
    skipped: int = attrs.field(validator=_at_least(0))


@attrs.frozen(kw_only=True)
class IngestOptions(FormatOptions):
    """What decides the shards that come of given files.

    Args:
        terminator: What is added to the end of each document: ``none``, ``newline`` or ``nul``.
        validation_fraction: Share of the documents that go to the validation split; 0 to below 1.
        salt: Decides, with a document's contents, to which split it goes.
        dedup: Keep only the first of documents that are the same.
        shard_bytes: A shard is closed at the document that brings the bytes of both splits to so many.
    """

    terminator: Literal["none", "newline", "nul"] = "none"
    validation_fraction: float = 0.0
    salt: str = ""
    dedup: bool = False
    shard_bytes: int = 1 << 26


@attrs.frozen(kw_only=True)
class Index:
    """What ``index.json`` says.

    Args:
        options: How the shards were made.
        files: The files that they were made of, in order.
        train: The shards to train on, in order.
        validation: The shards that are held out.
        duplicates: Documents left out because they had come before.
    """

    options: IngestOptions
    files: tuple[IngestedFile, ...]
    train: tuple[Shard, ...]
    validation: tuple[Shard, ...]
    duplicates: int

    @property
    def skipped(self) -> int:
        """Corrupt records that were skipped."""
        return sum(file.skipped for file in self.files)

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the digests of all shards: equal where their documents are."""
        digests = [[(shard.sha256, shard.ends_sha256) for shard in self.split(split)] for split in SPLITS]
        return hashlib.sha256(json.dumps(digests).encode()).hexdigest()

    def split(self, name: Split) -> tuple[Shard, ...]:
        """Return the shards of a split."""
        return self.train if name == "train" else self.validation

    def to_json(self) -> str:
        """Return the index as it is written."""
        head = {"form": _FORM, "version": VERSION, "fingerprint": self.fingerprint}
        return json.dumps({**head, **attrs.asdict(self)}, indent=1) + "\n"


def load_index(folder: Path) -> Index:
    """Read the index of a folder of shards.

    Raises:
        DataError: There is none, or it is no such index, or one of a later version.
    """
    path = folder / INDEX
    try:
        table = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{folder}: holds no {INDEX}, and so no finished shards; make them with: helix data ingest "
            f"{folder} FILES…"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise DataError(f"{path}: is damaged: {error}; make the shards anew (--restart)") from error
    return _structured(path, table)


def sizes(shards: Iterable[Shard]) -> tuple[int, int]:
    """Return how many documents and bytes shards hold together."""
    shards = list(shards)
    return sum(shard.documents for shard in shards), sum(shard.bytes for shard in shards)


def shard_folder(path: str) -> Path:
    """Return the folder that a path names; ``~`` is the home folder."""
    return Path(path).expanduser()


def _structured(path: Path, table: Any) -> Index:
    if not isinstance(table, dict) or table.get("form") != _FORM:
        raise DataError(f"{path}: is no index of shards (form is not {_FORM!r})")
    if table.get("version") != VERSION:
        raise DataError(
            f"{path}: is of version {table.get('version')!r}, and this helix-data reads version {VERSION}; "
            "take a newer one, or make the shards anew (--restart)"
        )
    try:
        index = Index(
            options=IngestOptions(**table["options"]),
            files=tuple(IngestedFile(**file) for file in table["files"]),
            train=tuple(Shard(**shard) for shard in table["train"]),
            validation=tuple(Shard(**shard) for shard in table["validation"]),
            duplicates=table["duplicates"],
        )
        if index.fingerprint != table["fingerprint"]:
            raise ValueError("its fingerprint is not that of its shards")  # noqa: TRY301 - one error for all
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: is damaged: {error}; make the shards anew (--restart)") from error
    return index
