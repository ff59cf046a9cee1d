"""What is installed, as plain tables kept on disk, so that listing it need not load it.

A listing stays valid while no directory of `sys.path`, no manifest and no module that a
manifest imported changes. It is not kept while a plugin is broken, since what would mend the
plugin may leave no trace there.
"""

from __future__ import annotations

import os
import sys
import time

from helix_kernel import __version__
from helix_kernel.discovery import entry_points, file_stamp, read_cache, write_cache

TYPE_CHECKING = False  # importing typing for this would double what a warm listing costs
if TYPE_CHECKING:
    from typing import Any

    from helix_kernel.discovery import EntryPoint
    from helix_kernel.kernel import Kernel

_CLOCK_TICK_NS = 10_000_000
"""A file's time is that of the system's last tick."""
_SELECTION = ("HELIX_PLUGINS", "HELIX_PLUGINS_DISABLED")


def listing() -> dict[str, Any]:
    """Return ``plugins``, ``failures``, ``kinds`` and ``components``, each a list of plain tables."""
    if any(os.environ.get(name) is not None for name in _SELECTION):
        return describe(_kernel())
    found = entry_points()
    known = kept(found)
    if known is not None:
        return known
    begun = time.time_ns()
    kernel = _kernel()
    described = describe(kernel)
    if not kernel.failures:
        packages = {"helix_kernel", *(plugin.module.partition(".")[0] for plugin in kernel.plugins)}
        files = _files(packages)
        # What changes while it is read may have been read as it was before.
        if all(time_ns < begun - _CLOCK_TICK_NS for _, time_ns, _ in files):
            write_cache(_cache_name(found), {"version": __version__, "files": files, "listing": described})
    return described


def kept(found: list[EntryPoint]) -> dict[str, Any] | None:
    """Return the listing that is kept on disk for these entry points, if it is valid still."""
    known = read_cache(_cache_name(found))
    if known and known["version"] == __version__ and all(file_stamp(f[0]) == f for f in known["files"]):
        listed: dict[str, Any] = known["listing"]
        return listed
    return None


def describe(kernel: Kernel) -> dict[str, Any]:
    """Return the same tables for a kernel that is loaded already."""
    import attrs

    plugins = [attrs.asdict(plugin) for plugin in kernel.plugins]
    for plugin in plugins:
        plugin["components"] = len(plugin["components"])
        plugin["kinds"] = [kind["name"] for kind in plugin["kinds"]]
    return {
        "plugins": sorted(plugins, key=lambda plugin: (plugin["provider"], plugin["name"])),
        "failures": [
            {
                "name": failure.name,
                "provider": failure.provider,
                "version": failure.version,
                "module": failure.module,
                "error": f"{type(failure.error).__name__}: {failure.error}",
                "traceback": failure.traceback,
            }
            for failure in kernel.failures
        ],
        "kinds": [attrs.asdict(kind) for kind in kernel.registry.kinds.values()],
        "components": [attrs.asdict(component) for component in kernel.components()],
    }


def _kernel() -> Kernel:
    from helix_kernel.kernel import Kernel

    return Kernel()


def _cache_name(found: list[EntryPoint]) -> str:
    import zlib

    # Two checkouts that PYTHONPATH chooses between have the same entry points.
    known = [os.environ.get("PYTHONPATH", ""), *(tuple(entry) for entry in found)]
    return f"listing-{sys.implementation.cache_tag}-{zlib.crc32(repr(known).encode()):08x}.json"


def _files(packages: set[str]) -> list[Any]:
    paths = {
        module.__file__
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] in packages and getattr(module, "__file__", None)
    }
    return [file_stamp(path) for path in sorted(filter(None, paths))]
