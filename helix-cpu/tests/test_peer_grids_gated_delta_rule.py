"""fla's published cases for the gated delta rule, held against fla's own plain recurrence.

From github.com/fla-org/flash-linear-attention (commit bc3b101, of 0.5.2), tests/ops/test_gdn.py: unit keys
and queries, heads of values that share one of keys, masked gates, and its tolerances on root-mean-square
errors. What a slow core would take minutes for is cut: batch, time or heads are shortened, the head's width
never; lengths are in `slow` cases as published, without gradients.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helix_cpu.autograd import Differentiable
from helix_cpu.bench.contest import AbsentError
from helix_cpu.bench.peers.fla_naive import function
from helix_cpu.ops.gated_delta_rule import gated_delta_rule, gated_delta_rule_backward

OURS = Differentiable(
    "gated_delta_rule", gated_delta_rule, gated_delta_rule_backward, leaves=(0, 1, 2, 3, 4, 6)
)
RATIOS = {
    "o": 0.005,
    "state": 0.005,
    "q": 0.008,
    "k": 0.008,
    "v": 0.008,
    "g": 0.02,
    "beta": 0.02,
    "h0": 0.008,
}
OF_FLOAT32 = 5e-5
"""Ours and fla's both compute in float32, and agree far better than the published tolerances ask."""


@pytest.fixture(scope="module")
def naive():
    try:
        return function("gated_delta_rule", "naive_recurrent_gated_delta_rule")
    except AbsentError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "groups", "head_dim", "scale", "gate_divisor", "mask", "dtype"),
    [
        (1, 63, 1, 1, 64, 1, 1, 0, torch.float32),
        (2, 100, 2, 1, 60, 1, 1, 0, torch.float32),
        pytest.param(1, 70, 2, 4, 128, 1, 0.1, 0, torch.float32, marks=pytest.mark.slow),
        (1, 65, 2, 1, 128, 0.1, 1, 0, torch.float32),
        (1, 65, 3, 1, 128, 1, 10, 0, torch.float32),
        (4, 90, 2, 1, 64, 0.1, 1, 0, torch.float32),
        (1, 65, 2, 1, 128, 1, 0.1, 0, torch.float16),
        (1, 65, 2, 2, 128, 1, 10, 0, torch.float16),
        (1, 65, 2, 1, 128, 0.1, 1, 1.0, torch.float16),
        (2, 75, 4, 1, 64, 1, 0.01, 0, torch.float16),
        (2, 100, 3, 1, 60, 1, 1, 0, torch.float16),
        (2, 100, 3, 1, 64, 0.1, 1, 0.5, torch.float16),
        (1, 70, 2, 1, 100, 1, 0.1, 0, torch.float16),
        (1, 64, 2, 2, 32, 0.1, 1, 0, torch.float32),
        (1, 70, 2, 4, 64, 1, 0.1, 0, torch.float16),
    ],
)
def test_forward_and_gradients(
    batch_size, seq_len, n_heads, groups, head_dim, scale, gate_divisor, mask, dtype, naive
):
    leaves, grads = drawn(batch_size, seq_len, n_heads, groups, head_dim, gate_divisor, mask, dtype)

    def ours(q, k, v, g, beta, state):
        return OURS(q, k, v, g, beta, scale, state, None)

    def theirs(q, k, v, g, beta, state):
        return naive(q, k, v, beta, g, scale, state, output_final_state=True)

    found, expected = (run(op, leaves, grads, groups) for op in (ours, theirs))
    for name, one, other in zip(RATIOS, found, expected, strict=True):
        compare(name, one, other, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("batch_size", "seq_len", "n_heads", "groups", "head_dim", "scale", "gate_divisor"),
    [(2, 1000, 2, 4, 128, 1, 0.1), (4, 1024, 3, 1, 128, 1, 10), (4, 2048, 4, 1, 64, 0.1, 1)],
)
def test_forward_at_the_published_lengths(
    batch_size, seq_len, n_heads, groups, head_dim, scale, gate_divisor, naive
):
    leaves, _ = drawn(batch_size, seq_len, n_heads, groups, head_dim, gate_divisor, 0, torch.float32)
    q, k, v, g, beta, state = prepared(leaves, groups)
    found = OURS(q, k, v, g, beta, scale, state, None)
    expected = naive(q, k, v, beta, g, scale, state, output_final_state=True)
    for one, other in zip(found, expected, strict=True):
        compare("o", one, other, torch.float32)


def drawn(batch_size, seq_len, n_heads, groups, head_dim, gate_divisor, mask, dtype):
    """Draw q and k, each for as many heads of values, then v, log gates, strengths and the state."""
    generator = torch.Generator().manual_seed(42)

    def uniform(*shape):
        return torch.rand(shape, generator=generator)

    few, many = (batch_size, seq_len, n_heads), (batch_size, seq_len, n_heads * groups)
    q, k = uniform(*few, head_dim).to(dtype), uniform(*few, head_dim).to(dtype)
    v, beta = uniform(*many, head_dim).to(dtype), uniform(*many).sigmoid()
    g = F.logsigmoid(uniform(*many)) / gate_divisor * (uniform(*many) > mask)
    states = (batch_size, n_heads * groups, head_dim, head_dim)
    state, grad_state = (torch.randn(states, generator=generator) for _ in range(2))
    return (q, k, v, g, beta, state), (torch.randn(v.shape, generator=generator).to(dtype), grad_state)


def prepared(leaves, groups):
    q, k, *rest = leaves
    q, k = (F.normalize(each.repeat_interleave(groups, 2), p=2, dim=-1) for each in (q, k))
    return q, k, *rest


def run(op, leaves, grads, groups):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    o, state = op(*prepared(leaves, groups))
    ((o * grads[0]).sum() + (state * grads[1]).sum()).backward()
    return [o.detach(), state.detach(), *(leaf.grad for leaf in leaves)]


def compare(name, found, expected, dtype):
    ratio = OF_FLOAT32 if dtype is torch.float32 else RATIOS[name]
    error = (found.double() - expected.double()).square().mean().sqrt()
    assert error <= ratio * expected.double().square().mean().sqrt() + 1e-8, name
