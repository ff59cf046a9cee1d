"""What a distribution's metadata tells: where it is installed from, and which import packages are its own."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution


def installed_distribution(name: str) -> Distribution | None:
    """Return the metadata of a distribution, or None where it is not installed."""
    try:
        return importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def editable_folder(distribution: Distribution) -> Path | None:
    """Return the folder that a distribution is installed from in editable mode, or None."""
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(origin.get("url", "")).path))


def recorded_packages(distribution: Distribution) -> Iterator[str]:
    """Yield the top-level packages and modules that a distribution's RECORD lists."""
    for file in distribution.files or ():
        parts = file.parts
        if len(parts) == 2 and parts[1] == "__init__.py":
            yield parts[0]
        elif len(parts) == 1 and file.suffix == ".py" and not file.name.startswith("_"):
            yield file.stem
