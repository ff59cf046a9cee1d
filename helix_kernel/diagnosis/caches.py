"""Checks that the listings kept on disk say what is installed."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from helix_kernel.diagnosis.finding import Finding
from helix_kernel.discovery import cache_directory, entry_points
from helix_kernel.listing import describe, kept

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from helix_kernel.diagnosis.installation import Installation

_OF_THE_PROCESS = ("import_seconds", "heavy_imports")
"""What a plugin's table tells of the process that loaded it."""


def check_caches(installation: Installation) -> Iterator[Finding]:
    """Find kept listings that are valid by their stamps, and wrong."""
    fresh = entry_points(cached=False)
    stale = []
    if entry_points() != fresh:
        stale.append("entry points")
    whole = not installation.kernel.registry.left_out and not installation.kernel.failures
    known = kept(fresh) if whole else None
    if known is not None and _comparable(known) != _comparable(describe(installation.kernel)):
        stale.append("components")
    if stale:
        folder = shlex.quote(cache_directory())
        yield Finding(
            check="stale-cache",
            what=f"the list of {' and '.join(stale)} that is kept in {cache_directory()} is not what is "
            "installed: a file changed and kept its time",
            mend=f"rm -f {folder}/entry-points-*.json {folder}/listing-*.json",
        )


def _comparable(listing: Mapping[str, Any]) -> str:
    plugins = [
        {key: value for key, value in plugin.items() if key not in _OF_THE_PROCESS}
        for plugin in listing["plugins"]
    ]
    rest = {name: listing[name] for name in ("kinds", "components")}
    return json.dumps({"plugins": plugins, **rest}, sort_keys=True, default=str)
