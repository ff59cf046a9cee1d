"""How long a call takes on the device, and what the device can do at best."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 20
_WARM_UP = 5
_FLUSH_BYTES = 256 << 20  # more than any GPU's second-level cache


class Clock:
    """Medians over rounds, by CUDA events, each round with a cold cache; by the wall where there is no GPU.

    Args:
        device: Where the calls run.
        rounds: How many times each is timed.
    """

    def __init__(self, device: torch.device, rounds: int = _ROUNDS) -> None:
        self.device = device
        self.rounds = rounds
        size = _FLUSH_BYTES if device.type == "cuda" else 1
        self._flush = torch.empty(size, dtype=torch.int8, device=device)

    def seconds(self, call: Callable[[], object]) -> float:
        """Return the median time of a call."""
        for _ in range(_WARM_UP if self.device.type == "cuda" else 0):
            call()
        return statistics.median(self._once(call) for _ in range(self.rounds))

    def _once(self, call: Callable[[], object]) -> float:
        self._flush.zero_()
        if self.device.type != "cuda":
            begun = time.perf_counter()
            call()
            return time.perf_counter() - begun
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3


def copy_bandwidth(clock: Clock, nbytes: int) -> float:
    """Return bytes a second, read and written, of a copy on the device."""
    source = torch.empty(nbytes // 2, dtype=torch.int8, device=clock.device)
    target = torch.empty_like(source)
    return nbytes / clock.seconds(lambda: target.copy_(source))


def matrix_rate(clock: Clock, size: int) -> float:
    """Return floating-point operations a second of a product of two square bfloat16 matrices."""
    a, b = (torch.randn(size, size, device=clock.device).bfloat16() for _ in range(2))
    return 2 * size**3 / clock.seconds(lambda: a @ b)
