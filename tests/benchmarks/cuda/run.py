"""The Triton kernels on a GPU: prints docs/benchmarks/cuda.md's tables; with --write writes that page.

Usage: python tests/benchmarks/cuda/run.py [--smoke] [--write] [--out FILE]

With --smoke everything runs once at small sizes, on the CPU by Triton's interpreter where there is no GPU
(TRITON_INTERPRET=1): a test of this script and no measurement.
"""

from __future__ import annotations

import argparse
import gc
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch

sys.path.append(str(Path(__file__).parents[1]))  # what all benchmarks share
import kernels
import models
from clock import Clock, copy_bandwidth, matrix_rate
from heading import ROOT, heading

import helix_kernel
import helix_ssm.ops  # noqa: F401 - defines the ops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

TARGET = ROOT / "docs/benchmarks/cuda.md"
PACKAGES = ("helix-cuda", "helix-ssm", "torch", "triton")
NOTE = """\
Medians over {rounds} rounds by CUDA events, each with a cold second-level cache; bfloat16 inputs. A floor is
the time that the bytes or the products of a call take at the ceilings measured in the same run: a copy of
1 GiB, {bandwidth:.0f} GB/s read and written, and a product of bfloat16 matrices, {rate:.0f} TFLOP/s. Bytes
are those of each argument and result once; products are counted by the op's contract."""
KERNELS = ["kernel", "shape", "time", "against", "its time", "result", "goal"]
MODELS = ["what", "found", "against", "result", "goal"]


def main() -> int:
    """Measure what the command line asks for; 2 without a GPU, 1 where a case failed."""
    arguments = _arguments()
    if not (torch.cuda.is_available() or arguments.smoke):
        print(
            "no GPU: PyTorch finds no CUDA device (--smoke tries the script on small sizes)", file=sys.stderr
        )
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    clock = Clock(device, rounds=2) if arguments.smoke else Clock(device)
    with helix_kernel.default_kernel().backends(["cuda-triton", "auto"]):
        page, failed = _page(clock, smoke=arguments.smoke)
    print(page)
    if arguments.out:
        arguments.out.write_text(page)
    if arguments.write and not arguments.smoke:
        TARGET.write_text(page)
    return 1 if failed else 0


def _page(clock: Clock, *, smoke: bool) -> tuple[str, bool]:
    bandwidth = copy_bandwidth(clock, 1 << (16 if smoke else 30))
    rate = matrix_rate(clock, 64 if smoke else 8192)
    sizes = kernels.Sizes((1, 4), (1, 4), (1, 4), (16,)) if smoke else kernels.Sizes()
    timed = (_row(case, clock, bandwidth, rate) for case in _each(kernels.cases(clock.device, sizes)))
    own = list(timed)
    whole = list(_each(models.rows(clock, models.SMALL if smoke else models.Sizes(), bandwidth)))
    told = [[row.what, row.found, row.against, row.ratio, row.goal] for row in whole if row is not None]
    failed = None in own or None in whole
    note = NOTE.format(rounds=clock.rounds, bandwidth=bandwidth / 1e9, rate=rate / 1e12)
    name = torch.cuda.get_device_name() if clock.device.type == "cuda" else "no GPU: interpreted"
    head = heading("Kernels on a GPU", "python tests/benchmarks/cuda/run.py --write", PACKAGES)
    tables = [_table(KERNELS, [row for row in own if row is not None]), _table(MODELS, told)]
    return "\n\n".join([head + f"- GPU: {name}\n", note, *tables]) + "\n", failed


def _each(makers: Iterable[Callable[[], Iterator[object]]]) -> Iterator[object]:
    """Yield what the makers make, and None for one that fails, whose traceback is printed."""
    for make in makers:
        try:
            yield from make()
        except Exception:  # noqa: BLE001 - the other cases are still wanted
            traceback.print_exc()
            yield None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _row(case: kernels.Case | None, clock: Clock, bandwidth: float, rate: float) -> list[str] | None:
    if case is None:
        return None
    try:
        seconds = clock.seconds(case.run)
        name, other, result = _against(case, seconds, clock, bandwidth, rate)
    except Exception:  # noqa: BLE001 - as above
        traceback.print_exc()
        return None
    return [case.name, str(case.shape), _shown(seconds), name, _shown(other), result, case.goal]


def _against(
    case: kernels.Case, seconds: float, clock: Clock, bandwidth: float, rate: float
) -> tuple[str, float, str]:
    if case.peer is not None:
        name, call = case.peer
        other = clock.seconds(call)
        return name, other, f"{other / seconds:.2f}\N{MULTIPLICATION SIGN}"
    if case.flops:
        floor = case.flops / rate
        return f"products, {case.flops / 1e9:.1f} GFLOP", floor, f"{floor / seconds:.0%} of the matrix rate"
    floor = case.nbytes / bandwidth
    return f"bytes, {case.nbytes / 1e6:.1f} MB", floor, f"{floor / seconds:.0%} of copy bandwidth"


def _shown(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/cuda.md as well")
    parser.add_argument("--out", type=Path, help="write the page to this file as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
