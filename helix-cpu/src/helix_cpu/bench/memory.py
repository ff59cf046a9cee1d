"""How much memory the scan needs for its gradients, beyond arguments and results; a program of its own.

Usage: python -m helix_cpu.bench.memory BATCH_SIZE SEQ_LEN D_MODEL D_STATE

It prints that memory as a multiple of one activation (B, L, D). The peak is the kernel's (Linux), so what C++
takes counts too; a fresh process, in which the allocator gives back all that is freed, makes it exact.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from helix_cpu.bench.contest import AbsentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def activations_of_gradients(batch_size: int, seq_len: int, d_model: int, d_state: int) -> float:
    """Return how many activations forward and backward hold at their peak, beyond arguments and results.

    Raises:
        AbsentError: This system tells no peak.
    """
    if not _RESET.exists():
        raise AbsentError("only Linux tells the peak")
    sizes = map(str, (batch_size, seq_len, d_model, d_state))
    environment = os.environ | {
        "MALLOC_MMAP_THRESHOLD_": "65536",  # glibc: what is freed goes back at once
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "helix_cpu.bench.memory", *sizes]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)  # noqa: S603 - this file
    return float(done.stdout)


def main() -> None:
    """Measure once, after a run that touches what stays anyway."""
    from helix_cpu.bench import inputs
    from helix_cpu.bench.ours import selective_scan_with_all_gradients

    drawn = inputs.scan(*map(int, sys.argv[1:]))
    run = selective_scan_with_all_gradients(drawn)
    run()
    activations = peak_beyond_results(run) / (drawn.u.numel() * drawn.u.element_size())
    print(activations)  # noqa: T201 - what its caller reads


def peak_beyond_results(run: Callable[[], tuple[Tensor, ...]]) -> int:
    """Return how many bytes a run holds at its peak, beyond what was there before and what it returns."""
    _RESET.write_text("5")
    before = _bytes("VmRSS")
    results = run()
    return _bytes("VmHWM") - before - sum(tensor.numel() * tensor.element_size() for tensor in results)


def _bytes(name: str) -> int:
    lines = _STATUS.read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main()
