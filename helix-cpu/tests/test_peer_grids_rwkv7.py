"""fla's published cases for RWKV-7's recurrence, held against fla's own plain recurrence.

From github.com/fla-org/flash-linear-attention (commit bc3b101, of 0.5.2), tests/ops/test_rwkv7.py and
test_dplr_delta.py: a transition of a diagonal plus rank one, its draws and the tolerances 0.002 forward and
0.008 for gradients on root-mean-square errors. What a slow core would take minutes for is cut: batch, time
or heads are shortened, the head's width never; lengths are in `slow` cases as published, without gradients.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helix_cpu.autograd import Differentiable
from helix_cpu.bench.contest import AbsentError
from helix_cpu.bench.peers.fla_naive import function
from helix_cpu.ops.rwkv7 import rwkv7, rwkv7_backward

OURS = Differentiable("rwkv7", rwkv7, rwkv7_backward, leaves=range(7))
FORWARD, GRADIENTS = 0.002, 0.008
OF_FLOAT32 = 5e-5
"""Ours and fla's both compute in float32, and agree far better than the published tolerances ask."""


@pytest.fixture(scope="module")
def naive():
    try:
        recurrence = function("generalized_delta_rule/dplr", "dplr_recurrence")
    except AbsentError as error:
        pytest.skip(str(error))

    def run(r, w, k, v, a, b, state):
        """Heads come before time there, and queries are scaled."""
        q = r * r.shape[-1] ** 0.5
        o, final = recurrence(*(each.transpose(1, 2) for each in (q, k, v, a, b, w)), state)
        return o.transpose(1, 2), final

    return run


def ours(r, w, k, v, a, b, state):
    return OURS(r, w, k, v, a, b, state, None)


@pytest.mark.parametrize("seq_len", [1, pytest.param(1024, marks=pytest.mark.slow)])
def test_forward_of_rwkv7s_own_draws(seq_len, naive):
    generator = torch.Generator().manual_seed(42)
    shape = (2, seq_len, 1, 64)

    def uniform(low, high):
        return torch.empty(shape).uniform_(low, high, generator=generator)

    r, k, v, w = (uniform(-8, -6) for _ in range(4))
    removal = F.normalize(uniform(-1, 1), dim=-1)
    state = torch.randn(2, 1, 64, 64, generator=generator)
    arguments = (r, w, k, v, -removal, removal * uniform(0, 0.1), state)
    compare(ours(*arguments), naive(*arguments), torch.float32, FORWARD)


@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "head_dim", "gate_divisor", "mask", "lowest", "dtype"),
    [
        (1, 63, 1, 64, 16, 0, None, torch.float32),
        (2, 100, 2, 60, 4, 0, None, torch.float32),
        (1, 65, 2, 128, 4, 0, None, torch.float32),
        (1, 65, 2, 100, 4, 0, None, torch.float32),
        (1, 63, 1, 64, 1, 0, -5, torch.float16),
        (2, 100, 3, 60, 1, 0, -5, torch.float16),
        (2, 70, 3, 64, 1, 0.5, -5, torch.float16),
        (1, 65, 2, 100, 0.1, 0, -5, torch.float16),
        (1, 65, 2, 100, 0.1, 0, -0.61, torch.float16),
        (1, 65, 2, 128, 1, 0.5, None, torch.float16),
        (1, 65, 2, 128, 10, 0, None, torch.float16),
    ],
)
def test_forward_and_gradients(
    batch_size, seq_len, n_heads, head_dim, gate_divisor, mask, lowest, dtype, naive
):
    leaves, grads = drawn(batch_size, seq_len, n_heads, head_dim, gate_divisor, mask, lowest, dtype)
    found, expected = run(ours, leaves, grads), run(naive, leaves, grads)
    compare(found[:2], expected[:2], dtype, FORWARD)
    compare(found[2:], expected[2:], dtype, GRADIENTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "head_dim"), [(2, 1024, 4, 60), (2, 1024, 8, 128), (4, 2048, 8, 64)]
)
def test_forward_at_the_published_lengths(batch_size, seq_len, n_heads, head_dim, naive):
    leaves, _ = drawn(batch_size, seq_len, n_heads, head_dim, 4, 0, None, torch.float32)
    compare(ours(*leaves), naive(*leaves), torch.float32, FORWARD)


def drawn(batch_size, seq_len, n_heads, head_dim, gate_divisor, mask, lowest, dtype):
    """Draw receptances, log decays, keys, values, the two vectors of the transition and the state."""
    generator = torch.Generator().manual_seed(42)
    shape, states = (batch_size, seq_len, n_heads, head_dim), (batch_size, n_heads, head_dim, head_dim)

    def normal(*shape):
        return torch.randn(shape, generator=generator)

    r, k, v = (normal(*shape).to(dtype) for _ in range(3))
    a = F.normalize(torch.rand(shape, generator=generator), p=2, dim=-1).to(dtype)
    w = F.logsigmoid(normal(*shape)) / gate_divisor * (torch.rand(shape, generator=generator) > mask)
    w = w if lowest is None else w.clamp(lowest, 0)
    return (r, w, k, v, a, -a, normal(*states)), (normal(*shape).to(dtype), normal(*states))


def run(op, leaves, grads):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    o, state = op(*leaves)
    ((o * grads[0]).sum() + (state * grads[1]).sum()).backward()
    return [o.detach(), state.detach(), *(leaf.grad for leaf in leaves)]


def compare(found, expected, dtype, published):
    ratio = OF_FLOAT32 if dtype is torch.float32 else published
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other.double()).square().mean().sqrt()
        assert error <= ratio * other.double().square().mean().sqrt() + 1e-8
