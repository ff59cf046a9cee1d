"""Where the bytes come from: paths that the user names, and texts that every Python carries."""

from __future__ import annotations

import glob
import os
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from helix_data.byte_stream import ByteStream, FileSegment, MemorySegment
from helix_data.config import check_origin
from helix_kernel.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from helix_data.config import Source

_NOT_SOURCES = frozenset(
    {"__pycache__", "dist-packages", "idle_test", "lib-dynload", "site-packages", "test", "tests"}
)


def open_corpus(source: Source | None, paths: Sequence[str]) -> ByteStream:
    """Return the bytes that a dataset's options name.

    Args:
        source: See `open_source`.
        paths: See `open_paths`. Exactly one of the two is given.

    Raises:
        ArgumentError: Neither or both are given.
        DataError: The corpus is missing, empty or unreadable.
    """
    check_origin(source, paths)
    return open_source(source) if source else open_paths(paths)


def origin_of(source: Source | None, paths: Sequence[str]) -> str:
    """Return how messages call what the options name."""
    return f"source={source!r}" if source else f"paths={list(paths)!r}"


def open_source(source: Source) -> ByteStream:
    """Return a corpus that the running Python carries; it differs between Python versions.

    ``python-docs`` is the language reference as `help` shows it: the texts of
    ``pydoc_data.topics.topics`` in the dictionary's order, each in UTF-8, with one newline between
    one text and the next.

    ``python-stdlib`` is every ``*.py`` file of the standard library, byte for byte, sorted by its
    path in it; without tests (folders ``test``, ``tests``, ``idle_test``), installed packages
    (``site-packages``, ``dist-packages``) and ``_sysconfigdata*.py``, which building writes.

    Raises:
        DataError: This Python was installed without it.
    """
    return _python_docs() if source == "python-docs" else _python_stdlib()


def open_paths(paths: Sequence[str]) -> ByteStream:
    """Return the files that the paths name, in the order of the paths.

    A folder stands for all files below it and a glob for all that match, each sorted by path,
    without hidden ones (a name that begins with a dot) and without empty ones. A file that is named
    twice is read once, so that none is both trained on and held out.

    Args:
        paths: Files, folders and globs; ``~`` is the home folder, ``**`` any number of folders.

    Raises:
        DataError: A path does not exist, a glob matches nothing, a file is empty or unreadable.
    """
    return ByteStream(files_of_paths(paths))


def files_of_paths(paths: Sequence[str]) -> list[FileSegment]:
    """Return the files that `open_paths` reads.

    Raises:
        DataError: See `open_paths`.
    """
    segments: dict[str, FileSegment] = {}
    for index, path in enumerate(paths):
        argument = f"paths[{index}]={path!r}"
        found = list(_segments(os.path.expanduser(path), argument))  # noqa: PTH111 - Path drops a final slash
        if not found:
            raise DataError(f"{argument}: holds no file with anything in it; hidden files are passed over")
        for segment in found:
            segments.setdefault(os.path.realpath(segment.path), segment)
    return list(segments.values())


def files_of_classes(path: str) -> dict[str, list[FileSegment]]:
    """Return the files of each class: those below each folder in a folder.

    Folders and files are sorted by path; hidden ones and empty files are passed over.

    Args:
        path: The folder that holds the classes' folders; ``~`` is the home folder.

    Raises:
        DataError: It is no folder or cannot be read, holds fewer than two folders, or one of them holds
            no file.
    """
    argument = f"path={path!r}"
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DataError(
            f"{argument}: is no folder{_seen_from(folder)}; give one with a folder for each class"
        )
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if len(names) < 2:
        raise DataError(
            f"{argument}: holds {len(names)} folders, and 2 classes are the fewest: one folder each"
        )
    found = {}
    for name in names:
        inner = f"{argument}: {folder / name}"
        found[name] = list(_non_empty(_files_below(str(folder / name), inner), inner))
        if not found[name]:
            raise DataError(f"{inner}: holds no file with anything in it, and so no example of its class")
    return found


def _segments(path: str, argument: str) -> Iterator[FileSegment]:
    if os.path.isdir(path):  # noqa: PTH112 - one style with glob
        yield from _non_empty(_files_below(path, argument), argument)
    elif os.path.lexists(path) or not glob.has_magic(path):
        yield _single_file(Path(path), argument)
    else:
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
        if not matches:
            raise DataError(f"{argument}: the glob matches nothing{_seen_from(path)}")
        yield from _non_empty((Path(match) for match in matches if not Path(match).is_dir()), argument)


def _single_file(path: Path, argument: str) -> FileSegment:
    if not os.path.lexists(path):
        raise DataError(f"{argument}: does not exist{_seen_from(path)}")
    segment = FileSegment.of(path, argument)
    if segment.size == 0:
        raise DataError(f"{argument}: is an empty file; give one with text in it")
    return segment


def _non_empty(files: Iterator[Path], argument: str) -> Iterator[FileSegment]:
    for file in files:
        segment = FileSegment.of(file, f"{argument}: {file}")
        if segment.size:
            yield segment


def _files_below(folder: str, argument: str, *, without: Collection[str] = ()) -> Iterator[Path]:
    """Yield the files of a folder, sorted by the parts of their paths, but none in folders so named."""

    def fail(error: OSError) -> None:
        raise DataError(f"{argument}: cannot list {error.filename}: {error.strerror}") from error

    files = []
    for parent, folders, names in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in without]
        files += [Path(parent, name) for name in names if not name.startswith(".")]
    yield from sorted(files, key=lambda file: file.parts)


def _seen_from(path: str | Path) -> str:
    return "" if os.path.isabs(path) else f" (seen from {Path.cwd()})"  # noqa: PTH117 - a str too


def _python_docs() -> ByteStream:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError(
            "source='python-docs': this Python was installed without pydoc_data; give paths instead"
        ) from error
    text = "\n".join(topics.values()).encode()
    return ByteStream([MemorySegment(np.frombuffer(text, dtype=np.uint8))])


def _python_stdlib() -> ByteStream:
    folder = sysconfig.get_path("stdlib")
    argument = f"source='python-stdlib' ({folder})"
    files = (
        file
        for file in _files_below(folder, argument, without=_NOT_SOURCES)
        if file.suffix == ".py" and not file.name.startswith("_sysconfigdata")
    )
    segments = list(_non_empty(files, argument))
    if not segments:
        raise DataError(f"{argument}: this Python was installed without its sources; give paths instead")
    return ByteStream(segments)
