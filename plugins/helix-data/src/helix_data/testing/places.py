"""Files that an example of a component may name, made up when a conformance suite asks for them."""

from __future__ import annotations

import functools
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def filled(example: Any) -> Any:
    """Return an example with the names of places, such as ``"<files>"``, replaced by their paths."""
    if isinstance(example, str) and example in PLACES:
        return place(example)
    if isinstance(example, dict):
        return {key: filled(value) for key, value in example.items()}
    if isinstance(example, list | tuple):
        return [filled(value) for value in example]
    return example


@functools.cache
def place(name: str) -> str:
    """Return the path of a folder or file that is one of `PLACES`, the same until the process ends."""
    holder = tempfile.TemporaryDirectory(prefix="helix-place-", ignore_cleanup_errors=True)
    _FOLDERS.append(holder)
    folder = Path(holder.name)
    made = PLACES[name](folder)
    return str(made or folder)


def with_places(code: str) -> str:
    """Return code in which the name of a place has become the call that makes it."""
    for name in PLACES:
        code = code.replace(repr(name), f"place({name!r})")
    return code


def _text(seed: int, size: int) -> bytes:
    """Return bytes of which no part of some length comes twice."""
    draw = random.Random(f"place {seed}")  # noqa: S311 - no secret
    return bytes(draw.choices(range(32, 127), k=size))


def _files(folder: Path) -> None:
    for number, size in enumerate((900, 1, 2500, 700)):
        (folder / f"{number}.txt").write_bytes(_text(number, size))


def _classes(folder: Path) -> None:
    for label, name in enumerate(("even", "odd")):
        (folder / name).mkdir()
        for number in range(20):
            size = 20 + 3 * number
            (folder / name / f"{number}.txt").write_bytes(_text(100 * (1 + label) + number, size))


def _shards(folder: Path) -> None:
    from helix_data.ingestion.run import Tolerance, ingest
    from helix_data.shards.index import IngestOptions

    with tempfile.TemporaryDirectory() as documents:
        for number in range(60):
            document = _text(1000 + number, 30 + 5 * (number % 17))
            (Path(documents) / f"{number:02}.txt").write_bytes(document)
        ingest(
            folder,
            [documents],
            options=IngestOptions(shard_bytes=700, validation_fraction=0.2),
            tolerance=Tolerance(),
            workers=1,
            restart=False,
            watcher=_Nobody(),
        )


def _tokenizer(folder: Path) -> Path:
    from helix_data.byte_pair_training import train_byte_pair
    from helix_data.sources import open_paths

    text, file = folder / "text.txt", folder / "tokenizer.json"
    text.write_text(
        "The cat sat on the mat, and the cat sat. Süße Äpfel, naïve cafés.\n" * 20, encoding="utf-8"
    )
    trained = train_byte_pair(open_paths([str(text)]), vocab_size=300, special_tokens=["<|end|>"])
    file.write_text(trained, encoding="utf-8")
    return file


def _empty(_folder: Path) -> None:
    """Leave the folder as it is."""


PLACES: dict[str, Callable[[Path], Path | None]] = {
    "<files>": _files,
    "<classes>": _classes,
    "<shards>": _shards,
    "<tokenizer.json>": _tokenizer,
    "<empty>": _empty,
}
"""What makes each: text files, a folder of them for each of two classes, shards, a tokenizer, or nothing.

What returns a path has made a file, the others fill the folder that they are given.
"""


class _Nobody:
    """Watches an ingestion and says nothing."""

    def begin(self, *, files: int, size: int, done: int) -> None: ...

    def advance(self, advance: Any) -> None: ...

    def note(self, text: str) -> None: ...
