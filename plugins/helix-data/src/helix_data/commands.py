"""The commands `helix data ingest`, `helix data show` and `helix data verify`."""

from __future__ import annotations

import json as _json
from typing import TYPE_CHECKING, Any, Literal

from helix_data.documents.formats import FormatName  # noqa: TC001 - the command line reads the annotations
from helix_data.shards.index import SPLITS, load_index, shard_folder, sizes
from helix_kernel.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from helix_data.shards.index import Index


def ingest(
    out: str,
    /,
    *paths: str,
    format: FormatName = "auto",  # noqa: A002 - the option's name
    field: str = "text",
    member: str | None = None,
    terminator: Literal["none", "newline", "nul"] = "none",
    validation_fraction: float = 0.0,
    salt: str = "",
    dedup: bool = False,
    shard_bytes: int = 1 << 26,
    on_error: Literal["raise", "skip"] = "raise",
    max_skipped: int = 1000,
    workers: int = 1,
    restart: bool = False,
    json: bool = False,
) -> None:
    """Make a folder of shards, for the dataset byte-shards, of the documents in files.

    What is killed goes on where it was when the same is run again, and ends with the same bytes.

    Args:
        out: The folder: new, empty, or of an ingestion that is not finished.
        paths: Files, folders and globs.
        format: How files are read; auto: by their names (.jsonl, .csv, .tsv, .parquet, .tar; each but
            Parquet may end in .gz), and what has another name is one document of bytes.
        field: The field of JSON lines, or the column of CSV or Parquet, that holds the document.
        member: Of tar archives only the members of this suffix, such as txt, one in each sample.
        terminator: What is added to the end of each document.
        validation_fraction: Share of the documents, chosen by what they hold, that are held out.
        salt: Makes that choice another one.
        dedup: Keep only the first of documents that are the same.
        shard_bytes: Close a shard at the document that brings it to so many bytes.
        on_error: What a corrupt record does: end the ingestion, or be counted, named and left out.
        max_skipped: How many records may be left out before the ingestion ends all the same.
        workers: Processes that read; they change nothing about the result.
        restart: Remove what an earlier ingestion left in the folder first.
        json: Print one JSON object at the end.
    """
    from helix_data.ingestion.progress import IngestProgress
    from helix_data.ingestion.run import Tolerance
    from helix_data.ingestion.run import ingest as ingest_files
    from helix_data.shards.index import IngestOptions

    if not paths:
        raise InputError("no files to read: helix data ingest OUT PATHS…")
    _check(
        validation_fraction,
        {"shard-bytes": (shard_bytes, 1), "max-skipped": (max_skipped, 0), "workers": (workers, 1)},
    )
    folder = shard_folder(out)
    progress = IngestProgress()
    try:
        index = ingest_files(
            folder,
            paths,
            options=IngestOptions(
                format=format,
                field=field,
                member=member,
                terminator=terminator,
                validation_fraction=validation_fraction,
                salt=salt,
                dedup=dedup,
                shard_bytes=shard_bytes,
            ),
            tolerance=Tolerance(on_error=on_error, max_skipped=max_skipped),
            workers=workers,
            restart=restart,
            watcher=progress,
        )
    finally:
        progress.close()
    _print(_summary(folder, index), as_json=json)


def show(folder: str, /, *, json: bool = False) -> None:
    """Show what a folder of shards holds and of what it was made; reads its index alone.

    Args:
        folder: The folder.
        json: Print one JSON object, with every file that was read.
    """
    path = shard_folder(folder)
    index = load_index(path)
    if json:
        print(
            _json.dumps({"path": str(path), "fingerprint": index.fingerprint, **_json.loads(index.to_json())})
        )
        return
    _print(_summary(path, index), as_json=False)
    for file in index.files:
        documents = _counted(file.documents, "documents")
        print(f"  {file.name}: {documents}, {file.skipped:,} skipped, {file.empty:,} empty")


def verify(folder: str, /, *, json: bool = False) -> int:
    """Read every byte of a folder of shards, and name what is damaged.

    Args:
        folder: The folder.
        json: Print one JSON object.

    Returns:
        0, or 1 where something is damaged.
    """
    from helix_data.shards.verification import damage

    path = shard_folder(folder)
    index = load_index(path)
    found = list(damage(path, index))
    if json:
        print(_json.dumps({"path": str(path), "damage": found}))
    else:
        n_shards = sum(len(index.split(split)) for split in SPLITS)
        whole = f"all {n_shards} shards are" if n_shards != 1 else "its one shard is"
        print("\n".join(found) if found else f"{path}: {whole} whole")
    return 1 if found else 0


def _check(fraction: float, numbers: dict[str, tuple[int, int]]) -> None:
    if not 0 <= fraction < 1:
        raise InputError(f"--validation-fraction is {fraction}, allowed is >= 0 and < 1")
    for name, (value, least) in numbers.items():
        if value < least:
            raise InputError(f"--{name} is {value}, allowed is >= {least}")


def _summary(folder: Path, index: Index) -> dict[str, Any]:
    found: dict[str, Any] = {"path": str(folder), "files": len(index.files)}
    for split in SPLITS:
        documents, nbytes = sizes(index.split(split))
        found[split] = {"documents": documents, "bytes": nbytes, "shards": len(index.split(split))}
    left_out = {
        "duplicates": index.duplicates,
        "empty": sum(file.empty for file in index.files),
        "skipped": index.skipped,
    }
    return {**found, **left_out, "fingerprint": index.fingerprint}


def _print(summary: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print(_json.dumps(summary))
        return
    for name, value in summary.items():
        if isinstance(value, dict):
            shown = ", ".join(_counted(number, what) for what, number in value.items())
        else:
            shown = f"{value:,}" if isinstance(value, int) else value
        print(f"{name:<12} {shown}")


def _counted(number: int, plural: str) -> str:
    return f"{number:,} {plural if number != 1 else plural.removesuffix('s')}"
