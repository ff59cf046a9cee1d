"""The least time that a kernel could take: as many vector instructions as it needs, and nothing else.

They are issued by a loop of fused multiply-adds in the same run, so the processor's clock and its ports need
not be known.
"""

from __future__ import annotations

import torch

from helix_cpu.bench.contest import Entry
from helix_cpu.library import Kernel, library

_PORT_BOUND = Kernel("port_bound", "2q")
_LANES = {"avx512": 16, "avx2": 8, "neon": 4, "baseline": 4}


def port_bound(n_elements: int, instructions: int) -> Entry:
    """Return a contestant that issues so many instructions for each vector of float32."""
    lanes = _LANES[library().isa]
    sink = torch.empty(lanes)
    return Entry(lambda: _PORT_BOUND(sink.data_ptr(), n_elements * instructions // lanes))
