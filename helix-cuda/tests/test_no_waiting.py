"""No op waits for the GPU: its code on the host reads no value of a tensor."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch
import triton

import helix_cuda.ops
import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cuda.ops import NAMES, implementations
from helix_kernel.ops import defined

SOURCES = sorted(Path(helix_cuda.ops.__file__).parent.glob("*.py"))
WAIT = {
    "item", "tolist", "numpy", "cpu", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive",
    "synchronize", "equal", "allclose", "is_nonzero",
}  # fmt: skip


def calls_that_wait(source):
    """Return the names of methods and functions called that bring values to the host."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
    return sorted(set(names) & WAIT)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_function_is_called_that_brings_values_to_the_host(path):
    assert calls_that_wait(path.read_text()) == []


def test_a_call_that_waits_is_found():
    assert calls_that_wait("n = bounds.max().item()\ntorch.cuda.synchronize()") == ["item", "synchronize"]


def moved(arg, device, dtype=torch.float32):
    if not isinstance(arg, torch.Tensor):
        return arg
    if arg.is_complex():
        return arg.to(device, torch.complex64)
    return arg.to(device, dtype if arg.is_floating_point() else None)


def run(op, args, as_grad):
    """Call an op and its gradient."""
    contract, kernels = op.contract, implementations()
    results = kernels[contract.name](*args)
    if results is NotImplemented:
        return None
    results = results if isinstance(results, tuple) else (results,)
    n_grads = len(results) - len(contract.saved)
    grads = [as_grad(result) for result in results[:n_grads]]
    return results, kernels[contract.backward_name](*grads, *results[n_grads:], *args)


@pytest.fixture
def nothing_runs(monkeypatch):
    """Replace what launches a kernel; returns how many launches there were."""
    launches = []
    kinds = [triton.JITFunction, triton.runtime.interpreter.InterpretedFunction, triton.runtime.Autotuner]
    for kind in kinds:
        monkeypatch.setattr(kind, "__getitem__", lambda self, _: lambda *_args, **_how: launches.append(self))
    return launches


@pytest.mark.parametrize("op", NAMES)
def test_every_sample_runs_where_no_tensor_has_values(nothing_runs, op):
    contract = defined()[op].contract
    for dtype in (torch.float32, torch.bfloat16):
        for sample in contract.samples():
            run(defined()[op], [moved(arg, "meta", dtype) for arg in sample.args], torch.empty_like)
    assert nothing_runs


def test_there_reading_a_value_fails():
    bounds = torch.tensor([0, 3], device="meta")
    for reads in (bounds[1].item, lambda: bounds.max() > 2 and 1, lambda: bounds[bounds > 0]):
        with pytest.raises((RuntimeError, NotImplementedError)):
            reads()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU to wait for")
@pytest.mark.parametrize("op", NAMES)
def test_every_sample_runs_where_waiting_is_an_error(op, device):
    for sample in defined()[op].contract.samples():
        args = [moved(arg, device) for arg in sample.args]
        run(defined()[op], args, torch.ones_like)  # compiles and tunes, which waits
        torch.cuda.set_sync_debug_mode("error")
        try:
            run(defined()[op], args, torch.ones_like)
        finally:
            torch.cuda.set_sync_debug_mode("default")
