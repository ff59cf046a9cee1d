"""A Sphinx extension that writes the reference of kinds, components, commands and configs before a build."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from generated_pages import commands, components, configs
from helix_kernel import Kernel

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sphinx.application import Sphinx

FOLDER = "reference/generated"


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / FOLDER, pages(Kernel())))
    return {"parallel_read_safe": True, "version": "1"}


def pages(kernel: Kernel) -> dict[str, str]:
    """Return the text of each generated file, by its name."""
    return {
        **components.pages(kernel),
        "commands.md": commands.page(),
        "config.md": configs.page(kernel),
        "helix.schema.json": configs.schema(kernel),
    }


def write(folder: Path, files: Mapping[str, str]) -> None:
    """Make a folder hold these files and no others; those that are the same already are not touched."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir()} - set(files):
        (folder / stale).unlink()
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
