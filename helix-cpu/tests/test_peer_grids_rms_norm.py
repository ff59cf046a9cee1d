"""mamba-ssm's published cases for its gated norm, with its tolerance.

From github.com/state-spaces/mamba 2.3.2.post1, tests/ops/triton/test_layernorm_gated.py, those of RMSNorm
without a bias: an error may be twice that of PyTorch in the narrow dtype, and a little. The oracle is the
formula in float64; rows are 64 in place of 16,384, and all of these in one `slow` case.
"""

from __future__ import annotations

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.autograd import Differentiable
from helix_cpu.ops.rms_norm import rms_norm, rms_norm_backward
from helix_kernel.ops import reference

REFERENCE = reference("rms_norm")
OURS = Differentiable("rms_norm", rms_norm, rms_norm_backward, leaves=(0, 1, 3))
EPS = 1e-5
ATOL = {torch.float32: 1e-5, torch.float16: 8e-3, torch.bfloat16: 8e-2}


@pytest.mark.parametrize(("z", "norm_before_gate"), [(False, True), (True, True), (True, False)])
@pytest.mark.parametrize("group_size", [None, 64])
@pytest.mark.parametrize("dtype", list(ATOL))
@pytest.mark.parametrize("d_model", [2048, 4096])
def test_forward_and_gradients(d_model, dtype, group_size, z, norm_before_gate):
    check((2, 32, d_model), dtype, group_size, z=z, norm_before_gate=norm_before_gate)


@pytest.mark.slow
def test_forward_and_gradients_of_many_rows():
    check((16, 1024, 2048), torch.float16, 64, z=True, norm_before_gate=False)


def check(shape, dtype, group_size, *, z, norm_before_gate):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    weight = torch.randn(shape[-1:], generator=generator)
    gate = torch.randn(shape, generator=generator).to(dtype) if z else None
    options = (group_size or shape[-1], norm_before_gate)
    ours = run(OURS, x, weight, gate, grad, options)
    narrow = run(in_the_dtype, x, weight, gate, grad, options)
    wide = [None if each is None else each.double() for each in (x, weight, gate, grad)]
    exact = run(REFERENCE, *wide, options)
    for found, pytorchs, expected in zip(ours, narrow, exact, strict=True):
        if expected is not None:
            error, allowed = (distance(each, expected) for each in (found, pytorchs))
            assert error <= 2 * allowed + ATOL[dtype]


def in_the_dtype(x, weight, eps, z, group_size, norm_before_gate):
    """The formula as PyTorch computes it without widening."""
    gate = None if z is None else torch.nn.functional.silu(z)
    s = x if gate is None or norm_before_gate else x * gate
    groups = s.unflatten(-1, (-1, group_size))
    normed = groups * (groups.square().mean(-1, keepdim=True) + eps).rsqrt()
    y = normed.flatten(-2) * weight
    return y if gate is None or not norm_before_gate else y * gate


def run(norm, x, weight, z, grad, options):
    leaves = [None if each is None else each.clone().requires_grad_() for each in (x, weight, z)]
    y = norm(*leaves[:2], EPS, leaves[2], *options)
    y.backward(grad.to(y.dtype))
    return [y.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]


def distance(found, expected):
    return (found.double() - expected).abs().max().item()
