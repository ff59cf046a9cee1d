"""The dtype that PyTorch gives to new tensors by default has no say in what an op computes."""

from __future__ import annotations

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contracts
from helix_kernel.ops import defined

OPS = (
    "add_rms_norm",
    "causal_conv1d",
    "diagonal_scan",
    "gated_delta_rule",
    "gla",
    "long_conv",
    "rms_norm",
    "rwkv7",
    "selective_scan",
    "ssd_scan",
)


def narrow(arg):
    if not isinstance(arg, torch.Tensor):
        return arg
    if arg.is_complex():
        return arg.to(torch.complex64).requires_grad_()
    return arg.float().requires_grad_() if arg.is_floating_point() else arg


def results_and_gradients(op, args):
    args = [narrow(arg) for arg in args]
    leaves = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.requires_grad]
    results = op(*args)
    results = results if isinstance(results, tuple) else (results,)
    wanted = [result for result in results if result.requires_grad]
    grads = [torch.ones_like(result) for result in wanted]
    return (*results, *torch.autograd.grad(wanted, leaves, grads, allow_unused=True, materialize_grads=True))


@pytest.mark.usefixtures("serve")
@pytest.mark.parametrize("name", OPS)
def test_results_are_the_same_whatever_the_default(name):
    op = defined()[name]
    for sample in op.contract.samples():
        expected = results_and_gradients(op, sample.args)
        torch.set_default_dtype(torch.float64)
        try:
            found = results_and_gradients(op, sample.args)
        finally:
            torch.set_default_dtype(torch.float32)
        for mine, other in zip(found, expected, strict=True):
            assert mine.dtype is other.dtype
            assert torch.equal(mine, other)
