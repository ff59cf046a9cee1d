"""Checks what installers left on disk: whole metadata, files that exist, one distribution of a name."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.version import InvalidVersion, Version

from helix_kernel import catalogue
from helix_kernel.diagnosis.finding import Finding
from helix_kernel.diagnosis.mending import install, reinstall, remove, uninstall
from helix_kernel.discovery import GROUP_PREFIX, canonical, shadowed
from helix_kernel.distributions import editable_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import PathDistribution

    from helix_kernel.diagnosis.installation import Installation
    from helix_kernel.discovery import EntryPoint

INSTALLERS_WITH_RECORD = ("", "pip", "uv")
"""Others, such as those of operating systems, keep their own record of what they installed."""


def check_metadata(installation: Installation) -> Iterator[Finding]:
    """Find distributions that are half installed, half removed, hidden, or whose folder is gone."""
    for entry in {e.provider: e for e in installation.found}.values():
        distribution = installation.distributions[entry.provider]
        yield from _incomplete(entry.provider, entry.version, Path(entry.location), distribution)
        yield from _vanished(entry.provider, distribution)
    yield from _hidden(installation)
    yield from _left_behind(installation)


def _incomplete(
    provider: str, version: str, location: Path, distribution: PathDistribution
) -> Iterator[Finding]:
    if location.suffix != ".dist-info":
        return
    installer = (distribution.read_text("INSTALLER") or "").strip()
    names = ["METADATA"] + (["RECORD"] if installer in INSTALLERS_WITH_RECORD else [])
    gone = [name for name in names if not (location / name).is_file()]
    if gone:
        yield Finding(
            check="half-installed",
            what=f"{provider} {version} is half installed or half removed: {location} has no "
            f"{' and no '.join(gone)}",
            mend=f"{remove(str(location))}\n{reinstall(provider, version)}",
            provider=provider,
        )
        return
    lost = [str(file) for file in distribution.files or () if _is_lost(distribution, str(file))]
    if lost:
        others = f" and {len(lost) - 1} more of its files" if len(lost) > 1 else ""
        yield Finding(
            check="files-gone",
            what=f"{provider} {version} was installed with {lost[0]}{others}, which {_are(lost)} gone",
            mend=reinstall(provider, version),
            provider=provider,
        )


def _is_lost(distribution: PathDistribution, file: str) -> bool:
    return not file.endswith(".pyc") and not Path(str(distribution.locate_file(file))).exists()


def _are(items: list[str]) -> str:
    return "are" if len(items) > 1 else "is"


def _vanished(provider: str, distribution: PathDistribution) -> Iterator[Finding]:
    folder = editable_folder(distribution)
    if folder is not None and not folder.is_dir():
        yield Finding(
            check="editable-gone",
            what=f"{provider} is installed in editable mode from {folder}, which is gone",
            mend=uninstall(provider),
            note=f"or install it from where it is now: {install('NEW_FOLDER', options=('-e',))}",
            provider=provider,
        )


def _hidden(installation: Installation) -> Iterator[Finding]:
    counted = {entry.provider: entry for entry in installation.found}
    for hidden in {entry.location: entry for entry in shadowed()}.values():
        winner = counted.get(hidden.provider)
        if winner is None:
            continue
        what = (
            f"{hidden.provider} {hidden.version} in {hidden.location} is hidden by {winner.version} in "
            f"{winner.location}"
        )
        if os.path.dirname(hidden.location) == os.path.dirname(winner.location):  # noqa: PTH120 - both are text
            # An upgrade that was stopped; the files are those of the last one that was begun.
            newest = max(hidden, winner, key=_version).version
            both = remove(winner.location, hidden.location)
            mend, note = f"{both}\n{reinstall(hidden.provider, newest)}", ""
        else:
            mend = remove(hidden.location)
            note = f"or keep that one: {remove(winner.location)}"
        yield Finding(check="hidden", what=what, mend=mend, note=note, provider=hidden.provider)


def _version(entry: EntryPoint) -> Version:
    try:
        return Version(entry.version)
    except InvalidVersion:
        return Version("0")


def _left_behind(installation: Installation) -> Iterator[Finding]:
    """Find what pip renames before it removes it, and leaves so where it is stopped."""
    known = catalogue.DISTRIBUTIONS | {"helix-kernel"} | {entry.provider for entry in installation.found}
    tails = {canonical(name)[1:] for name in known}
    for root in dict.fromkeys(map(os.path.abspath, sys.path)):
        folder = Path(root)
        found = sorted(str(path) for path in _tilde(folder) if _is_ours(path, tails))
        if found:
            names = ", ".join(Path(path).name for path in found)
            yield Finding(
                check="left-behind",
                what=f"an installer that was stopped left {names} in {root}",
                mend=remove(*found),
            )


def _tilde(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith("~")]
    except OSError:  # a zip file, or a folder that is gone
        return []


def _is_ours(path: Path, tails: set[str]) -> bool:
    name, _, _ = path.name[1:].partition("-") if path.suffix == ".dist-info" else (path.name[1:], "", "")
    if canonical(name) in tails:
        return True
    try:
        return GROUP_PREFIX in (path / "entry_points.txt").read_text(encoding="utf-8")
    except OSError:
        return False
