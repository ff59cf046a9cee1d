"""Finds the plugins that are installed, by their entry points, importing none of them.

Reads `entry_points.txt` of each installed distribution directly, because `importlib.metadata`
parses far more than a listing needs, and keeps the result on disk for as long as no directory
of `sys.path` changes. This module imports only what is cheap: every `helix` command pays for it.
"""
# ruff: noqa: PTH100, PTH103, PTH105, PTH111, PTH116, PTH118, PTH123, PTH208
# (importing pathlib would double what a warm listing costs)

from __future__ import annotations

import json
import os
import sys
import time
from collections import namedtuple

TYPE_CHECKING = False  # as in typing, whose import alone would cost more than a warm listing
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

GROUP_PREFIX = "helix_kernel.v"
SETTLED_NS = 2 * 10**9

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
    roots = _roots(paths)
    stamps: list[list[Any]] = [[root, _mtime(root)] for root in roots]
    if not cached:
        return list(_scan(roots))
    name = f"entry-points-{_digest(roots)}.json"
    known = read_cache(name)
    if known and known.get("roots") == stamps:
        return [EntryPoint(*fields) for fields in known["entry_points"]]
    found = list(_scan(roots))
    # An installer may be halfway through a directory that has just changed, and what it writes
    # into a distribution's own folder leaves no trace in the directory above.
    if all(abs(time.time_ns() - stamp) > SETTLED_NS for _, stamp in stamps):
        write_cache(name, {"roots": stamps, "entry_points": found})
    return found


def shadowed(paths: Sequence[str] | None = None) -> list[EntryPoint]:
    """Return entry points of distributions that an earlier one of the same name hides."""
    seen: set[str] = set()
    hidden: list[EntryPoint] = []
    for distribution in _distributions(_roots(paths)):
        if distribution[0] in seen:
            hidden.extend(_read(*distribution))
        seen.add(distribution[0])
    return hidden


def canonical(name: str) -> str:
    """Return the one spelling of a distribution's name, as installers compare names."""
    return name.replace("_", "-").replace(".", "-").lower()


def cache_directory() -> str:
    """Return where listings are kept: ``$HELIX_CACHE_DIR``, else ``helix`` in the user's cache."""
    chosen = os.environ.get("HELIX_CACHE_DIR")
    if chosen:
        return chosen
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(base, "helix")


def read_cache(name: str) -> dict[str, Any] | None:
    """Return a cached JSON object, or None where there is none that can be read."""
    try:
        with open(os.path.join(cache_directory(), name), encoding="utf-8") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_cache(name: str, value: dict[str, Any]) -> None:
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


def _roots(paths: Sequence[str] | None) -> list[str]:
    given = sys.path if paths is None else paths
    return list(dict.fromkeys(os.path.abspath(path or os.curdir) for path in given))


def _scan(roots: Iterable[str]) -> Iterator[EntryPoint]:
    seen: set[str] = set()
    for distribution in _distributions(roots):
        if distribution[0] not in seen:
            seen.add(distribution[0])
            yield from _read(*distribution)


def _distributions(roots: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Yield name, version and metadata directory of all that is installed, whatever it declares."""
    for root in roots:
        try:
            names = sorted(os.listdir(root))
        except OSError:  # a zip file, or a directory that is gone
            continue
        for name in names:
            # An installer that is stopped leaves what it was removing under a name with a tilde.
            if name.endswith((".dist-info", ".egg-info")) and not name.startswith("~"):
                provider, _, version = name.rpartition(".")[0].partition("-")
                yield canonical(provider), version.partition("-py")[0], os.path.join(root, name)


def _read(provider: str, version: str, location: str) -> Iterator[EntryPoint]:
    try:
        with open(os.path.join(location, "entry_points.txt"), "rb") as file:
            content = file.read()
    except OSError:
        return
    if GROUP_PREFIX.encode() not in content:
        return
    version = version or _version_in(location)
    group = ""
    for raw in content.decode("utf-8", "replace").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif "=" in line and group.startswith(GROUP_PREFIX) and group[len(GROUP_PREFIX) :].isdigit():
            key, _, value = line.partition("=")
            yield EntryPoint(key.strip(), value.split("[")[0].strip(), group, provider, version, location)


def _version_in(location: str) -> str:
    """Return the version that an ``.egg-info`` without one in its name holds."""
    try:
        with open(os.path.join(location, "PKG-INFO"), encoding="utf-8") as file:
            return next((line.partition(":")[2].strip() for line in file if line.startswith("Version:")), "")
    except OSError:
        return ""


def _mtime(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def _digest(parts: Iterable[str]) -> str:
    import zlib

    return f"{zlib.crc32(chr(0).join(parts).encode()):08x}-{sys.implementation.cache_tag}"
