"""What a table of results depends on, as its heading: command, machine, versions, commit."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
import subprocess
import sys
from pathlib import Path

import helix_cpu
from helix_cpu.bench.peers import PACKAGES, installed
from helix_cpu.library import library

_CPUINFO = Path("/proc/cpuinfo")


def heading(command: str, threads: int) -> str:
    """Return the head of the document."""
    load = f"; load before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    versions = {"helix-cpu": helix_cpu.__version__, "torch": installed("torch")}
    versions |= {name: installed(name) or "absent" for name in PACKAGES}
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            "# Ops on the CPU",
            "",
            f"- command: `{command}`",
            f"- machine: {cpu_model()}, {cores()} cores, {sys.platform}{load}",
            f"- instruction set: {library().isa}; threads: {threads} where a row names no other number",
            f"- date: {dt.datetime.now(dt.UTC):%Y-%m-%d}",
            f"- commit: {commit()}",
            f"- versions: Python {platform.python_version()}, {named}",
            "",
        ]
    )


def cpu_model() -> str:
    """Return the processor's name, as Linux tells it."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def has_amx() -> bool:
    """Whether the processor multiplies matrices of bfloat16 by itself."""
    return _CPUINFO.exists() and "amx_bf16" in _CPUINFO.read_text()


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """Return the commit of the files that run, and whether they differ from it; of a wheel none is known."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(  # noqa: S603 - git
            command, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "that of the wheel"
