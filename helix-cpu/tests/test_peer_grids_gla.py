"""fla's published cases for gated linear attention, held against fla's own plain recurrence.

From github.com/fla-org/flash-linear-attention (commit bc3b101, of 0.5.2), tests/ops/test_gla.py: draws,
gates, packed bounds and the tolerance 0.005 on root-mean-square errors. What a slow core would take minutes
for is cut: batch, time or heads are shortened, the head's width and the bounds' pattern never; lengths are
in `slow` cases as published, without gradients.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from helix_cpu.autograd import Differentiable
from helix_cpu.bench.contest import AbsentError
from helix_cpu.bench.peers.fla_naive import function
from helix_cpu.ops.gla import gla, gla_backward

OURS = Differentiable("gla", gla, gla_backward, leaves=(0, 1, 2, 3, 5))
RATIO = 0.005
OF_FLOAT32 = 2e-5
"""Ours and fla's both compute in float32, and agree far better than the published tolerance asks."""


@pytest.fixture(scope="module")
def naive():
    try:
        return function("gla", "naive_recurrent_gla")
    except AbsentError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "head_dim", "gate_divisor", "dtype"),
    [
        (1, 63, 1, 64, 1, torch.float32),
        (2, 130, 2, 60, 1, torch.float32),
        (1, 65, 2, 128, 0.1, torch.float32),
        (1, 65, 2, 128, 1, torch.float32),
        (1, 65, 2, 128, 10, torch.float32),
        pytest.param(4, 100, 2, 64, 1, torch.float32, marks=pytest.mark.slow),
        (1, 65, 2, 128, 0.1, torch.float16),
        (1, 65, 2, 128, 10, torch.float16),
        (1, 63, 1, 64, 1, torch.float16),
        (1, 17, 2, 256, 1, torch.float16),
        (1, 17, 1, 320, 1, torch.float16),
        (1, 17, 1, 512, 1, torch.bfloat16),
    ],
)
def test_forward_and_gradients(batch_size, seq_len, n_heads, head_dim, gate_divisor, dtype, naive):
    leaves, grads = drawn(batch_size, seq_len, n_heads, head_dim, gate_divisor, dtype)
    compare(run(ours, leaves, grads), run(naive, leaves, grads), dtype)


@pytest.mark.parametrize(
    ("head_dim", "bounds", "dtype"),
    [
        (64, (0, 15), torch.float32),
        (64, (0, 0, 16), torch.float16),
        (64, (0, 64, 125, 250), torch.float32),
        (100, (0, 15, 50, 75, 150, 200), torch.float32),
        (64, (0, 1, 50, 75, 150, 205), torch.float16),
        pytest.param(128, (0, 20, 51, 120, 205), torch.float16, marks=pytest.mark.slow),
    ],
)
def test_forward_and_gradients_of_packed_sequences(head_dim, bounds, dtype, naive):
    n = len(bounds) - 1
    leaves, grads = drawn(1, bounds[-1], 2, head_dim, 1, dtype, n_states=n)

    def one_by_one(*tensors):
        *sequences, states = tensors
        parts = [
            naive(*(each[:, start:end] for each in sequences), states[i : i + 1], output_final_state=True)
            for i, (start, end) in enumerate(itertools.pairwise(bounds))
        ]
        return torch.cat([o for o, _ in parts], dim=1), torch.cat([state for _, state in parts])

    def packed(q, k, v, g, state, **_):
        return OURS(q, k, v, g, q.shape[-1] ** -0.5, state, torch.tensor(bounds))

    expected = run(lambda *tensors, **_: one_by_one(*tensors), leaves, grads)
    compare(run(packed, leaves, grads), expected, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "head_dim", "gate_divisor"),
    [(2, 1024, 4, 60, 1), (2, 1024, 8, 128, 0.1), (2, 1024, 8, 128, 10), (4, 2048, 8, 64, 1)],
)
def test_forward_at_the_published_lengths(batch_size, seq_len, n_heads, head_dim, gate_divisor, naive):
    leaves, _ = drawn(batch_size, seq_len, n_heads, head_dim, gate_divisor, torch.float32)
    compare(ours(*leaves), naive(*leaves, output_final_state=True), torch.float32)


def ours(q, k, v, g, state, **_):
    return OURS(q, k, v, g, q.shape[-1] ** -0.5, state, None)


def drawn(batch_size, seq_len, n_heads, head_dim, gate_divisor, dtype, n_states=None):
    """Draw q, k, v, log gates and the state, and gradients of the output and of the final state."""
    generator = torch.Generator().manual_seed(42)
    shape = (batch_size, seq_len, n_heads, head_dim)
    q, k, v, g = (torch.rand(shape, generator=generator).to(dtype) for _ in range(4))
    states = (n_states or batch_size, n_heads, head_dim, head_dim)
    state, grad_state = torch.rand(states, generator=generator), torch.randn(states, generator=generator)
    grad = torch.randn(shape, generator=generator).to(dtype)
    return (q, k, v, F.logsigmoid(g) / gate_divisor, state), (grad, grad_state)


def run(op, leaves, grads):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    o, state = op(*leaves, output_final_state=True)
    ((o * grads[0]).sum() + (state * grads[1]).sum()).backward()
    return [o.detach(), state.detach(), *(leaf.grad for leaf in leaves)]


def compare(found, expected, dtype):
    ratio = OF_FLOAT32 if dtype is torch.float32 else RATIO
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other.double()).square().mean().sqrt()
        assert error <= ratio * other.double().square().mean().sqrt() + 1e-8
