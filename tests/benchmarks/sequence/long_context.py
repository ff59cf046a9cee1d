"""Peak memory of a language model over 64 Ki and 1 Mi random bytes, read in chunks without gradient.

Usage: python tests/benchmarks/sequence/long_context.py [--mixer NAME ...] [--lengths N ...] [--write]

Each length runs in a process of its own, whose peak is what the system counted; the program ends with 1
where a peak is over its limit. Without --lengths, expect minutes a mixer on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
from heading import ROOT, heading

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = "python tests/benchmarks/sequence/long_context.py"
TARGET = ROOT / "docs/benchmarks/long-context.md"
LENGTHS = (65_536, 1_048_576)
D_MODEL, N_LAYERS, CHUNK_LEN = 256, 4, 2048
PEAK_LIMIT = 1.5 * 2**30
RATIO_LIMIT = 1.05


@attrs.frozen
class Run:
    """What one process took.

    Args:
        mixer: The model's mixer.
        length: Bytes that it read.
        peak: Its peak resident memory, in bytes.
        seconds: How long reading took.
    """

    mixer: str
    length: int
    peak: int
    seconds: float


def main() -> int:
    """Print the table, and write it with --write; return 1 where a limit is not met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mixer", nargs="+", default=["mamba"], help="layers along the sequence")
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="bytes, the first for 1.00")
    parser.add_argument("--write", action="store_true", help=f"write {TARGET.relative_to(ROOT)} as well")
    parser.add_argument("--read", nargs=2, metavar=("MIXER", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        mixer, length = arguments.read
        print(json.dumps(attrs.asdict(read(mixer, int(length)))))
        return 0
    if arguments.write and tuple(arguments.lengths) != LENGTHS:
        parser.error("--write writes the lengths of the target; leave --lengths out")
    command = f"{COMMAND} --mixer {' '.join(arguments.mixer)} --write"
    head = heading("Long context", command, ("helix-ssm", "torch"))
    print(head, NOTE, "", *HEADS, sep="\n", flush=True)
    rows, met = [], True
    for mixer in arguments.mixer:
        runs = []
        for length in arguments.lengths:
            runs.append(in_a_process(mixer, length))
            rows.append(row(runs))
            met &= is_met(runs)
            print(rows[-1], flush=True)
    if arguments.write:
        TARGET.write_text("\n".join([head, NOTE, "", *HEADS, *rows, ""]), encoding="utf-8")
    return 0 if met else 1


NOTE = f"""\
A language model of {N_LAYERS} blocks and width {D_MODEL} over bytes, float32, batch 1: random bytes are
read {CHUNK_LEN} at a time by `extend`, without gradient, each length in a process of its own. The peak is the
process's largest resident memory, Python and torch counted; the ratio is to the first length's. Limits:
{PEAK_LIMIT / 2**30:g} GiB, and a ratio of {RATIO_LIMIT:g}."""
HEADS = (
    "| mixer | bytes | peak, MiB | ratio | minutes | limits met |",
    "|---|---:|---:|---:|---:|---|",
)


def in_a_process(mixer: str, length: int) -> Run:
    """Read so many bytes in a fresh process."""
    command = [sys.executable, __file__, "--read", mixer, str(length)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{mixer} over {length} bytes failed:\n{done.stderr}")
    return Run(**json.loads(done.stdout.splitlines()[-1]))


def read(mixer: str, length: int) -> Run:
    """Read so many random bytes in this process."""
    import torch

    from helix_kernel import default_kernel

    default_kernel().use_backends(["auto"])
    torch.manual_seed(0)
    model = default_kernel().build("layer", model_table(mixer)).eval()
    start = time.perf_counter()
    with torch.inference_mode():
        state = model.init_state(1)
        for done in range(0, length, CHUNK_LEN):
            ids = torch.randint(256, (1, min(CHUNK_LEN, length - done)))
            logits, state = model.extend(ids, state)
            if not logits.isfinite().all():
                raise SystemExit(f"logits are not finite after {done} bytes")
    # Linux counts in kibibytes.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Run(mixer, length, peak, time.perf_counter() - start)


def model_table(mixer: str) -> dict[str, Any]:
    """Return the config of the model that is measured."""
    return {
        "use": "language-model",
        "d_model": D_MODEL,
        "n_layers": N_LAYERS,
        "mixer": {"use": mixer},
    }


def is_met(runs: Sequence[Run]) -> bool:
    """Whether the last of a mixer's runs keeps within the limits."""
    return runs[-1].peak < PEAK_LIMIT and runs[-1].peak < RATIO_LIMIT * runs[0].peak


def row(runs: Sequence[Run]) -> str:
    """Return the table's line of the last of a mixer's runs."""
    run, ratio = runs[-1], runs[-1].peak / runs[0].peak
    met = "yes" if is_met(runs) else "no"
    cells = (f"{run.length:,}", f"{run.peak / 2**20:,.0f}", f"{ratio:.3f}", f"{run.seconds / 60:.1f}", met)
    return f"| {run.mixer} | {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
