"""Finds the plugins that are installed, by their entry points, importing none of them.

Reads `entry_points.txt` of each installed distribution directly, because `importlib.metadata`
parses far more than a listing needs, and keeps the result on disk for as long as no directory
of `sys.path` changes. This module imports only what is cheap: every `helix` command pays for it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import namedtuple

TYPE_CHECKING = False  # as in typing, whose import alone would cost more than a warm listing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

GROUP_PREFIX = "helix_kernel.v"

EntryPoint = namedtuple("EntryPoint", "name module group provider version location")  # noqa: PYI024 - see above
EntryPoint.__doc__ = """A plugin as its distribution declares it.

Fields: name of the entry point; module, its manifest; group, such as ``helix_kernel.v1``;
provider and version, those of the distribution; location, its metadata directory.
"""


def entry_points(paths: Sequence[str] | None = None, *, cached: bool = True) -> list[EntryPoint]:
    """Return every entry point of a Helix group, of any major version of the API.

    Args:
        paths: Directories to search, in order of precedence; `sys.path` if left out. Of two
            distributions of one name the first found counts, as it does for imports.
        cached: Use and refresh the listing on disk (see `cache_directory`).
    """
    roots = [os.path.abspath(path or os.curdir) for path in (sys.path if paths is None else paths)]
    stamps = [[root, _mtime(root)] for root in dict.fromkeys(roots)]
    if not cached:
        return list(_scan(stamps))
    name = f"entry-points-{_digest(roots)}.json"
    known = read_cache(name)
    if known and known.get("roots") == stamps:
        return [EntryPoint(*fields) for fields in known["entry_points"]]
    found = list(_scan(stamps))
    write_cache(name, {"roots": stamps, "entry_points": found})
    return found


def shadowed(paths: Sequence[str] | None = None) -> list[EntryPoint]:
    """Return entry points of distributions that an earlier one of the same name hides."""
    roots = [os.path.abspath(path or os.curdir) for path in (sys.path if paths is None else paths)]
    seen: dict[tuple[str, str, str], str] = {}
    hidden = []
    for entry_point in _read_all(dict.fromkeys(roots)):
        key = (entry_point.provider, entry_point.group, entry_point.name)
        if seen.setdefault(key, entry_point.location) != entry_point.location:
            hidden.append(entry_point)
    return hidden


def cache_directory() -> str:
    """Return where listings are kept: ``$HELIX_CACHE_DIR``, else ``helix`` in the user's cache."""
    chosen = os.environ.get("HELIX_CACHE_DIR")
    if chosen:
        return chosen
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "helix")


def read_cache(name: str) -> dict[str, object] | None:
    """Return a cached JSON object, or None where there is none that can be read."""
    try:
        with open(os.path.join(cache_directory(), name), encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_cache(name: str, value: dict[str, object]) -> None:
    """Replace a cached JSON object; a directory that cannot be written costs only speed."""
    target = os.path.join(cache_directory(), name)
    temporary = f"{target}.{os.getpid()}"
    try:
        os.makedirs(cache_directory(), exist_ok=True)
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(value, file)
        os.replace(temporary, target)
    except OSError:
        return


def file_stamp(path: str) -> list[object]:
    """Return what changes when a file does: its path, time and size."""
    try:
        status = os.stat(path)
    except OSError:
        return [path, -1, -1]
    return [path, status.st_mtime_ns, status.st_size]


def _scan(stamps: Sequence[Sequence[object]]) -> Iterator[EntryPoint]:
    seen: dict[str, str] = {}
    for entry_point in _read_all(str(root) for root, _ in stamps):
        if seen.setdefault(entry_point.provider, entry_point.location) == entry_point.location:
            yield entry_point


def _read_all(roots: Iterable[str]) -> Iterator[EntryPoint]:
    for root in roots:
        try:
            names = sorted(os.listdir(root))
        except OSError:  # a zip file, or a directory that is gone
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield from _read(os.path.join(root, name), name)


def _read(location: str, name: str) -> Iterator[EntryPoint]:
    try:
        with open(os.path.join(location, "entry_points.txt"), "rb") as file:
            content = file.read()
    except OSError:
        return
    if GROUP_PREFIX.encode() not in content:
        return
    provider, _, version = name.rpartition(".")[0].partition("-")
    group = ""
    for raw in content.decode("utf-8", "replace").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif "=" in line and group.startswith(GROUP_PREFIX):
            key, _, value = line.partition("=")
            module = value.split("[")[0].strip()
            yield EntryPoint(key.strip(), module, group, provider.replace("_", "-").lower(), version, location)


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _digest(parts: Iterable[str]) -> str:
    import zlib

    return f"{zlib.crc32(chr(0).join(parts).encode()):08x}-{sys.implementation.cache_tag}"
