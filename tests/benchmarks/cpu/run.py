"""The kernels' benchmarks: prints what `helix bench ops` does; with --write docs/benchmarks/cpu.md as well.

Usage: python tests/benchmarks/cpu/run.py [--write]

Peers stand in the table where they are installed: transformers, llama-cpp-python (for ggml), jax, mambapy,
fla-core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from helix_cpu.commands import bench

TARGET = Path(__file__).parents[3] / "docs/benchmarks/cpu.md"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/cpu.md as well")
    bench("ops", write=TARGET if parser.parse_args().write else None)


if __name__ == "__main__":
    main()
