"""Kernels held to their op's contract on the device at hand, since not every compiler gets them right."""

from __future__ import annotations

import threading
from itertools import count
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from triton.runtime.errors import OutOfResources

from helix_cuda.ops import implementations
from helix_cuda.tuning import taking

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from helix_kernel.ops import Op, OpContract, Sample

ALLOWED: Mapping[torch.dtype, tuple[float, float]] = MappingProxyType(
    {torch.float32: (1e-4, 1e-3), torch.bfloat16: (3e-2, 6e-2)}
)
"""How far results and gradients may be off, relative to the largest element: ten times what rounding does."""


def failure(op: Op, device: torch.device, *, thorough: bool = False) -> str | None:
    """Run an op and its gradient against the reference in float64 on the CPU.

    It runs in a thread of its own, which knows nothing of the caller's modes, autocast and streams.

    Args:
        op: The op.
        device: Where to run its kernels.
        thorough: Whether to go through all of the contract's samples in every configuration of each kernel,
            and not just the samples that it takes to give and leave out each argument, in the first.

    Returns:
        What was wrong, by how much; None where all is well. An exception counts as wrong.
    """
    found: list[str | None] = []
    thread = threading.Thread(target=lambda: found.append(_guarded(op, device, thorough=thorough)))
    thread.start()
    thread.join()
    return found[0]


def few(contract: OpContract) -> list[Sample]:
    """Return samples that between them give and leave out each argument as all of them do."""
    left = sorted(contract.samples(), key=lambda sample: -sum(arg is not None for arg in sample.args))
    wanted = set().union(*map(_features, left))
    chosen = []
    while wanted:
        best = max(left, key=lambda sample: len(_features(sample) & wanted))
        chosen.append(best)
        wanted -= _features(best)
    return chosen


def _features(sample: Sample) -> set[tuple[int, str]]:
    """Return what kernels are compiled apart for: arguments that are there, dimensions, and booleans."""

    def kind(arg: Any) -> str:
        if isinstance(arg, torch.Tensor):
            return f"{arg.dim()} dimensions, {'complex' if arg.is_complex() else 'real'}"
        return str(arg) if arg is None or isinstance(arg, bool) else "a value"

    return {(i, kind(arg)) for i, arg in enumerate(sample.args)}


def _guarded(op: Op, device: torch.device, *, thorough: bool) -> str | None:
    try:
        if device.type != "cuda":
            return _first_failure(op, device, thorough=thorough)
        asked = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")  # results are compared on the CPU
        try:
            with torch.cuda.device(device):
                return _first_failure(op, device, thorough=thorough)
        finally:
            torch.cuda.set_sync_debug_mode(asked)
    except Exception as error:  # noqa: BLE001 - whatever a kernel or its compiler raises counts as wrong
        return f"raises {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _first_failure(op: Op, device: torch.device, *, thorough: bool) -> str | None:
    samples = list(op.contract.samples()) if thorough else few(op.contract)
    for index in count() if thorough else range(1):
        with taking(index) as choice:
            for dtype in ALLOWED:
                for sample in samples:
                    try:
                        wrong = _off(op, sample.args, dtype, device)
                    except OutOfResources:
                        if not index:
                            raise  # else the tuner passes that configuration over, too
                        continue
                    if wrong is not None:
                        which = f", configuration {index} of its kernels" if index else ""
                        return f"{wrong} in {dtype}, sample {sample.name!r}{which}"
        if not choice.exists:
            return None
    return None


def _off(op: Op, args: Sequence[Any], dtype: torch.dtype, device: torch.device) -> str | None:
    """Say which result or gradient of a sample is off and by how much; None too where the op declines."""
    contract, kernels = op.contract, implementations()
    given = [_cast(arg, dtype, device) for arg in args]
    exact = [_exact(arg) for arg in given]
    found = kernels[contract.name](*given)
    if found is NotImplemented:
        return None
    found, expected = _as_tuple(found), _as_tuple(op.references[contract.name](*exact))
    n_grads = len(expected) - len(contract.saved)
    for_results, for_gradients = ALLOWED[dtype]
    if wrong := _compare("result", found, expected, for_results):
        return wrong
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(result.shape, generator=generator).to(result.dtype) for result in found[:n_grads]]
    backward = contract.backward_name
    slopes = op.references[backward](*map(_exact, grads), *expected[n_grads:], *exact)
    on_device = [grad.to(device) for grad in grads]
    gradients = kernels[backward](*on_device, *found[n_grads:], *given)
    if gradients is NotImplemented:
        return None
    return _compare("gradient", _as_tuple(gradients), _as_tuple(slopes), for_gradients)


def _compare(what: str, found: Iterable[Tensor], expected: Iterable[Tensor], allowed: float) -> str | None:
    for i, (left, right) in enumerate(zip(found, expected, strict=True)):
        if left.shape != right.shape:
            return f"{what} {i} has shape {tuple(left.shape)}, expected {tuple(right.shape)}"
        if not right.numel():
            continue
        difference = (_exact(left) - right).abs().max().item()
        largest = max(right.abs().max().item(), torch.finfo(torch.float32).tiny)
        if not difference <= allowed * largest:
            return f"{what} {i} is off by {difference / largest:.1e} of its largest, allowed is {allowed:g},"
    return None


def _cast(arg: Any, dtype: torch.dtype, device: torch.device) -> Any:
    if not isinstance(arg, torch.Tensor):
        return arg
    if arg.is_complex():
        return arg.to(device, torch.complex64)
    return arg.to(device, dtype) if arg.is_floating_point() else arg.to(device)


def _exact(arg: Any) -> Any:
    """Return a tensor in double precision on the CPU, of the values that it has after rounding."""
    if not isinstance(arg, torch.Tensor):
        return arg
    if arg.is_complex():
        return arg.to("cpu", torch.complex128)
    return arg.to("cpu", torch.float64) if arg.is_floating_point() else arg.cpu()


def _as_tuple(results: Any) -> tuple[Any, ...]:
    return tuple(results) if isinstance(results, tuple | list) else (results,)
