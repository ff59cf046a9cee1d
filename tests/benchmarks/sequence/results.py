"""Results on file: one line of JSON a run, so that a stopped study goes on and processes may share a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Result = dict[str, Any]


def read(path: Path) -> list[Result]:
    """Return the results on file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def once(path: Path, key: Mapping[str, Any], run: Callable[[], Result]) -> Result:
    """Return the result on file whose entries are those of `key`, or make it, print it and keep it."""
    for result in read(path):
        if key.items() <= result.items():
            return result
    result = {**key, **run()}
    line = json.dumps(result)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    print(line, flush=True)
    return result


def share(jobs: list[Any], shard: str) -> list[Any]:
    """Return every n-th job from the i-th on, for a shard written "i/n"."""
    index, count = (int(part) for part in shard.split("/"))
    return jobs[index::count]
