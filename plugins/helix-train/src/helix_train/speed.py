"""How fast a run is: its floating-point operations, the device's peak, and the share of time without data."""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from helix_train.state import kept_rngs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SIZES = {"cpu": (256, 512, 1024)}
_ACCELERATOR_SIZES = (2048, 4096, 8192)
_BUDGET_S = 0.3


class Speed:
    """Turns what a process did in some seconds into rates.

    Args:
        flops_per_step: Floating-point operations of a step in this process; None where they are not known.
        peak: What this process's device does at best, in operations a second; None where it is not known.
    """

    def __init__(self, *, flops_per_step: int | None = None, peak: float | None = None) -> None:
        self.flops_per_step = flops_per_step
        self.peak = peak
        self._waited = 0.0

    def rates(self, *, steps: int, seconds: float, waited: float) -> dict[str, float]:
        """Return the rates since the last call, for a line of ``timing.jsonl``.

        Args:
            steps: Steps since then.
            seconds: Seconds since then.
            waited: Seconds that the run has waited for data since its start.

        Returns:
            ``data_wait``, the share of the time that passed in waiting for data, from 0 to 1; where they are
            known, ``flops_per_second`` and ``mfu``, their share of the peak.
        """
        share = (waited - self._waited) / seconds if seconds > 0 else 0.0
        self._waited = waited
        rates = {"data_wait": min(max(share, 0.0), 1.0)}
        if self.flops_per_step is not None and seconds > 0:
            rates["flops_per_second"] = self.flops_per_step * steps / seconds
            if self.peak:
                rates["mfu"] = rates["flops_per_second"] / self.peak
        return rates


def count_flops(run: Callable[[], object], model: torch.nn.Module) -> int:
    """Run something and return the floating-point operations that it took.

    A multiplication and an addition count as two. What counts are the matrix products, convolutions and
    attentions of PyTorch and the ops of Helix, by the formulas registered with `torch.utils.flop_counter`;
    elementwise operations do not. What is done twice, as under activation checkpointing, counts twice.

    While a mode such as this one listens, ops take PyTorch's dispatcher and no shortcut around it, so that
    none is missed. Results may differ in their last bits, so this is no step of the training: gradients,
    buffers and random numbers are afterwards as they were.

    Args:
        run: A forward and backward pass, most often.
        model: Whose gradients and buffers it changes.
    """
    counter = _Counter()
    with kept_rngs(), _kept_buffers_and_gradients(model), counter:
        run()
    return counter.total


def peak_flops(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """Return the most operations a second that square matrix products of some size reach on a device.

    It is measured once in a process, in about 0.3 s, at the number of threads and the precision of float32
    products that are in force.

    Args:
        device: Where.
        dtype: Of the matrices.
    """
    return _measured_peak(device, dtype, torch.get_num_threads(), torch.get_float32_matmul_precision())


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own class lacks its types
    """Adds up operations.

    PyTorch's own mode watches modules besides, which fails in a backward pass that differentiates within
    itself, as a reversible model's does.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula: Any = flop_registry.get(func._overloadpacket)  # noqa: SLF001 - what formulas are kept by
        if formula is not None:
            self.total += int(formula(*args, **kwargs, out_val=result))
        return result


@contextmanager
def _kept_buffers_and_gradients(model: torch.nn.Module) -> Iterator[None]:
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)
        for parameter, gradient in gradients:
            parameter.grad = gradient


@functools.cache
def _measured_peak(device: torch.device, dtype: torch.dtype, threads: int, precision: str) -> float:
    del threads, precision  # what is measured depends on them, so that they are part of the cache's key
    sizes = _SIZES.get(device.type, _ACCELERATOR_SIZES)
    return max(_rate(size, device, dtype, _BUDGET_S / len(sizes)) for size in sizes)


def _rate(size: int, device: torch.device, dtype: torch.dtype, budget: float) -> float:
    """Return the best rate of one product of that size within a budget of seconds."""
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    best, end = float("inf"), time.perf_counter() + budget
    torch.mm(left, right, out=out)  # libraries choose their kernels now
    _wait_for(device)
    while True:
        begun = time.perf_counter()
        torch.mm(left, right, out=out)
        _wait_for(device)
        now = time.perf_counter()
        best = min(best, now - begun)
        if now >= end:
            return 2 * size**3 / best


def _wait_for(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
