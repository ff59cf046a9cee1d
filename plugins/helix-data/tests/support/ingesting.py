"""What tests of ingestion share: corpora, and a way to ingest them quietly."""

from __future__ import annotations

import json

import numpy as np

from helix_data.ingestion.run import Tolerance, ingest
from helix_data.shards.index import IngestOptions


class Quiet:
    """Watches an ingestion, and keeps what it is told."""

    def __init__(self):
        self.advances, self.notes, self.done = [], [], None

    def begin(self, *, files, size, done):
        self.done = done

    def advance(self, advance):
        self.advances.append(advance)

    def note(self, text):
        self.notes.append(text)


def ingested(
    folder, paths, *, on_error="raise", max_skipped=1000, workers=1, restart=False, watcher=None, **options
):
    return ingest(
        folder,
        [str(path) for path in paths],
        options=IngestOptions(**options),
        tolerance=Tolerance(on_error=on_error, max_skipped=max_skipped),
        workers=workers,
        restart=restart,
        watcher=watcher or Quiet(),
    )


def json_lines(path, documents):
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return path


def contents(folder):
    """Return the bytes of every file of a folder, by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def documents_of(folder, shards):
    """Return the documents of shards, read as their description says and by nothing of ours."""
    found = []
    for shard in shards:
        data = (folder / f"{shard.name}.bytes").read_bytes()
        ends = np.fromfile(folder / f"{shard.name}.ends", dtype="<u8").tolist()
        assert len(ends) == shard.documents
        assert ends[-1] == len(data) == shard.bytes
        found += [data[begin:end] for begin, end in zip([0, *ends[:-1]], ends, strict=True)]
    return found
