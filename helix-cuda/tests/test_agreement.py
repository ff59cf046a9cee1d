"""helix-cuda and helix-cpu give the same numbers for the same call."""

from __future__ import annotations

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_cpu.backend import CPUBackend
from helix_cuda.ops import NAMES, implementations
from helix_cuda.self_check import few
from helix_kernel.ops import defined

CPU = CPUBackend.ops
ALLOWED = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


def both(kernels, contract, args):
    """Return results and gradients, in double precision; None where the call is declined."""
    results = kernels[contract.name](*args)
    if results is NotImplemented:
        return None
    results = results if isinstance(results, tuple) else (results,)
    n_grads = len(results) - len(contract.saved)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(result.shape, generator=generator).to(result) for result in results[:n_grads]]
    slopes = kernels[contract.backward_name](*grads, *results[n_grads:], *args)
    return [widened(each.cpu()) for each in (*results[:n_grads], *slopes)]


def widened(tensor):
    return tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)


def given(args, dtype, device):
    def cast(arg):
        if not isinstance(arg, torch.Tensor):
            return arg
        if arg.is_complex():
            return arg.to(device, torch.complex64)
        return arg.to(device, dtype) if arg.is_floating_point() else arg.to(device)

    return [cast(arg) for arg in args]


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)], ids=str
)
@pytest.mark.parametrize("op", NAMES)
def test_results_and_gradients_agree(op, dtype, device):
    contract = defined()[op].contract
    compared = 0
    for sample in few(contract):
        expected = both(CPU, contract, given(sample.args, dtype, "cpu"))
        found = both(implementations(), contract, given(sample.args, dtype, device))
        if expected is None or found is None:
            continue
        for i, (left, right) in enumerate(zip(found, expected, strict=True)):
            if not right.numel():
                assert left.shape == right.shape
                continue
            off = (left - right).abs().max() / right.abs().max().clamp(min=1e-30)
            assert off <= ALLOWED[dtype], f"sample {sample.name!r}, tensor {i}: off by {off:.1e}"
            compared += 1
    assert compared
