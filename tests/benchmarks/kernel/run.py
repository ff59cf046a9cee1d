"""The kernel's benchmarks: prints their tables, and writes docs/benchmarks/kernel.md with --write.

Usage: python tests/benchmarks/kernel/run.py [SECTION ...] [--write]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import config_check
import discovery
import imports

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Callable

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
    parts = [heading("The kernel", "python tests/benchmarks/kernel/run.py --write", PACKAGES)]
    print(parts[0])
    for name in arguments.section or SECTIONS:
        parts.append(SECTIONS[name]())
        print(parts[-1], flush=True)
    if arguments.write:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        TARGET.write_text("\n".join(part.rstrip() + "\n" for part in parts))


if __name__ == "__main__":
    main()
