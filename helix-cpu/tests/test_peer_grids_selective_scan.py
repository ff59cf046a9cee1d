"""mamba-ssm's published cases for its selective scan and its decoding step, with its tolerances.

From github.com/state-spaces/mamba 2.3.2.post1, tests/ops/test_selective_scan.py and
tests/ops/triton/test_selective_state_update.py: sizes, draws and tolerances as they are there. The oracle
is the formula in float64. Sequences from 1024 on are `slow`; so are the widest steps.
"""

from __future__ import annotations

import itertools

import pytest
import torch

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.autograd import Differentiable
from helix_cpu.ops.selective_scan import selective_scan, selective_scan_backward
from helix_kernel.ops import reference

REFERENCE = reference("selective_scan")
OURS = Differentiable(
    "selective_scan",
    selective_scan,
    selective_scan_backward,
    leaves=(*range(8), 9),
    n_saved=1,
)
LENGTHS = (8, 16, 32, 64, 128, 256, 372, 512, 784, 1024, 1134, 2048, 4096)
RTOL = {torch.float32: 6e-4, torch.float16: 3e-3, torch.bfloat16: 3e-2}
ATOL = {torch.float32: 2e-3, torch.float16: 5e-3, torch.bfloat16: 5e-2}
STEP_RTOL = {torch.float32: 3e-4, torch.float16: 5e-3, torch.bfloat16: 1e-2}
STEP_ATOL = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}
DTYPES = tuple(RTOL)


def long(values, limit):
    """Mark those that a slow core takes seconds for."""
    return [pytest.param(value, marks=[pytest.mark.slow] if value >= limit else []) for value in values]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq_len", long(LENGTHS, 1024))
def test_forward_and_gradients_of_everything_at_once(seq_len, dtype, groups):
    check_scan(seq_len, dtype, groups)


@pytest.mark.parametrize(("D", "z", "bias", "softplus"), list(itertools.product([False, True], repeat=4)))
def test_forward_and_gradients_of_each_choice_of_options(D, z, bias, softplus):
    check_scan(128, torch.float32, 1, D=D, z=z, bias=bias, softplus=softplus)


@pytest.mark.parametrize("z", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_state", [16, 32, 64])
@pytest.mark.parametrize("d_model", long((2048, 2048 + 16, 4096), 4096))
def test_step(d_model, d_state, dtype, z):
    generator = torch.Generator().manual_seed(0)
    arguments = step(generator, dtype, (d_model,), (d_state,), z=z)
    A = -torch.rand(d_model, d_state, generator=generator) - 1.0
    check_step(arguments, A, d_model, dtype, STEP_ATOL[dtype])


@pytest.mark.parametrize("z", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("d_state", [16, 32, 64])
@pytest.mark.parametrize("d_model", long((2048, 4096), 4096))
def test_step_with_heads(d_model, d_state, groups, tied, dtype, z):
    generator = torch.Generator().manual_seed(0)
    head_dim = 64
    arguments = step(generator, dtype, (d_model,), (groups, d_state), z=z)
    rates = -torch.rand(d_model, d_state, generator=generator) - 1.0
    if tied:  # all channels of a head share step size, rate, skip and bias
        rates = rates[::head_dim, :1].repeat_interleave(head_dim, 0).repeat(1, d_state)
        for name in ("delta", "D", "delta_bias"):
            arguments[name] = arguments[name][..., ::head_dim].repeat_interleave(head_dim, -1)
    atol = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}[dtype]
    check_step(arguments, rates, d_model, dtype, atol)


def check_scan(seq_len, dtype, groups, *, D=True, z=True, bias=True, softplus=True):
    generator = torch.Generator().manual_seed(0)
    x, d_state = (2, seq_len, 4), 8
    projection = (2, seq_len, *((groups,) if groups > 1 else ()), d_state)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    leaves = [
        draw(*x).to(dtype),
        (0.5 * torch.rand(x, generator=generator)).to(dtype),
        -0.5 * torch.rand(4, d_state, generator=generator),
        draw(*projection).to(dtype),
        draw(*projection).to(dtype),
        draw(4) if D else None,
        draw(*x).to(dtype) if z else None,
        0.5 * torch.rand(4, generator=generator) if bias else None,
    ]
    grad = draw(*x).to(dtype)
    y, state, grads = run(OURS, leaves, softplus, grad)
    exact = [None if leaf is None else leaf.double() for leaf in leaves]
    expected, expected_state, expected_grads = run(REFERENCE, exact, softplus, grad.double())
    rtol, atol = RTOL[dtype], ATOL[dtype]
    close(y, expected, rtol, atol)
    close(state, expected_state, rtol, atol)
    # Those of weights have tolerances of their own, which are no tighter than the activations' beside a gate.
    w_rtol, w_atol = (max(1e-3, rtol), max(1e-3, atol)) if z else (1e-3, 1e-3)
    tolerances = [
        (2 * rtol, 2 * atol),
        (5 * rtol, 10 * atol),
        (w_rtol, 5 * w_atol),
        (rtol, atol),
        (rtol, atol),
        *[(w_rtol, w_atol)] * 3,
    ]
    for found, exactly, tolerance in zip(grads, expected_grads, tolerances, strict=True):
        if exactly is not None:
            close(found, exactly, *tolerance)


def run(scan, leaves, softplus, grad):
    leaves = [None if leaf is None else leaf.clone().requires_grad_() for leaf in leaves]
    y, state = scan(*leaves, softplus, None, None)[:2]
    y.backward(grad)
    return y.detach(), state.detach(), [None if leaf is None else leaf.grad for leaf in leaves]


def step(generator, dtype, channels, projection, *, z):
    """Draw a step's arguments; a projection has no axis of time there, and keeps float32."""

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    return {
        "state": draw(2, *channels, projection[-1]).to(dtype),
        "u": draw(2, 1, *channels).to(dtype),
        "delta": draw(2, 1, *channels).to(dtype),
        "delta_bias": torch.rand(channels, generator=generator) - 4.0,
        "B": draw(2, 1, *projection),
        "C": draw(2, 1, *projection),
        "D": draw(*channels),
        "z": draw(2, 1, *channels).to(dtype) if z else None,
    }


def check_step(drawn, A, d_model, dtype, atol):
    assert drawn["u"].shape == (2, 1, d_model)
    names = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    arguments = [{**drawn, "A": A}[name] for name in names]
    exact = [None if argument is None else argument.double() for argument in arguments]
    y, state = OURS(*arguments, True, drawn["state"], None)
    expected, expected_state, _ = REFERENCE(*exact, True, drawn["state"].double(), None)
    close(y, expected, STEP_RTOL[dtype], atol)
    close(state, expected_state, STEP_RTOL[dtype], atol)


def close(found, expected, rtol, atol):
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)
