"""The kernel's benchmarks: prints their tables, and writes docs/benchmarks/kernel.md with --write.

Usage: python tests/benchmarks/kernel/run.py [SECTION ...] [--write]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import io
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import config_check
import discovery
import imports

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
TARGET = ROOT / "docs/benchmarks/kernel.md"
PACKAGES = ("helix-kernel", "pluggy", "attrs", "cattrs", "numpy", "torch")


def op_dispatch() -> str:
    """Return what the benchmark of op dispatch prints; it imports torch, so only when asked for."""
    import op_dispatch as benchmark

    with contextlib.redirect_stdout(io.StringIO()) as printed:
        benchmark.main()
    return printed.getvalue()


SECTIONS: dict[str, Callable[[], str]] = {
    "imports": lambda: imports.main().markdown(),
    "discovery": lambda: discovery.main().markdown(),
    "commands": lambda: config_check.main().markdown(),
    "op-dispatch": op_dispatch,
}


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "section", nargs="*", choices=[*SECTIONS, []], help="sections to run; all if left out"
    )
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} as well")
    arguments = parser.parse_args()
    if arguments.write and arguments.section:
        parser.error("--write writes every section; leave the sections out")
    parts = [head()]
    print(parts[0])
    for name in arguments.section or SECTIONS:
        parts.append(SECTIONS[name]())
        print(parts[-1], flush=True)
    if arguments.write:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text("\n".join(part.rstrip() + "\n" for part in parts))


def head() -> str:
    """Return what the numbers depend on: command, machine, date, commit and versions."""
    versions = ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in PACKAGES)]
    )
    cores = len(os.sched_getaffinity(0))
    return "\n".join(
        [
            "# The kernel",
            "",
            "- command: `python tests/benchmarks/kernel/run.py --write`",
            f"- machine: {cpu_model()}, {cores} cores, {sys.platform}; load before {os.getloadavg()[0]:.1f}",
            f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}",
            f"- commit: {commit()}",
            f"- versions: {versions}",
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


if __name__ == "__main__":
    main()
