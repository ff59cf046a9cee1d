"""What a benchmark's numbers depend on, as the head of its document."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[2]


def heading(title: str, command: str, packages: Sequence[str]) -> str:
    """Return the head of a document: title, command, machine, date, commit and versions.

    Args:
        title: The document's title.
        command: What to run, in the repository's root, to measure again.
        packages: Distributions whose versions matter.
    """
    versions = [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in packages)]
    cores = len(os.sched_getaffinity(0))
    return "\n".join(
        [
            f"# {title}",
            "",
            f"- command: `{command}`",
            f"- machine: {cpu_model()}, {cores} cores, {sys.platform}; load before {os.getloadavg()[0]:.1f}",
            f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}",
            f"- commit: {commit()}",
            f"- versions: {', '.join(versions)}",
            "",
        ]
    )


def cpu_model() -> str:
    """Return the processor's name, as Linux tells it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def commit() -> str:
    """Return the commit measured, and whether files differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")
