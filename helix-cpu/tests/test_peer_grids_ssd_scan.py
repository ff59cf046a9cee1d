"""mamba-ssm's published cases for Mamba-2's scan: packed sequences, heads as channels, and its decoding step.

From github.com/state-spaces/mamba 2.3.2.post1, tests/ops/triton/test_ssd.py (the states of packed sequences
are those of each by itself; 300 sequences of up to 199 tokens, of which a quick run has 20, in fewer heads),
and test_selective_state_update.py where heads share a rate. `ssd_selective_scan` of
mamba_ssm/ops/triton/ssd_combined.py says how Mamba-2's scan is one of Mamba: the two kernels here agree so.
"""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import helix_ssm.ops  # noqa: F401 - defines the contract
from helix_cpu.autograd import Differentiable
from helix_cpu.ops.selective_scan import selective_scan
from helix_cpu.ops.ssd_scan import ssd_scan, ssd_scan_backward
from helix_kernel.ops import reference

REFERENCE = reference("ssd_scan")
OURS = Differentiable("ssd_scan", ssd_scan, ssd_scan_backward, leaves=(*range(7), 9))
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
HEAD_DIM, D_STATE = 64, 32
STEP_RTOL = {torch.float32: 3e-4, torch.float16: 5e-3, torch.bfloat16: 1e-2}
STEP_ATOL = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2, 8, "a head each"])
def test_states_of_packed_sequences(groups, dtype):
    check_packed(8 if groups == 8 else 4, groups, dtype, n_sequences=20)


@pytest.mark.slow
@pytest.mark.parametrize("groups", [1, "a head each"])
def test_states_of_many_packed_sequences(groups):
    check_packed(16, groups, torch.float32, n_sequences=300)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("d_state", [16, 32, 64])
@pytest.mark.parametrize("n_heads", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_step(n_heads, d_state, groups, dtype):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    state = draw(2, n_heads, HEAD_DIM, d_state).to(dtype)
    arguments = (
        draw(2, 1, n_heads, HEAD_DIM).to(dtype),
        draw(2, 1, n_heads).to(dtype),
        -torch.rand(n_heads, generator=generator) - 1.0,
        draw(2, 1, groups, d_state),
        draw(2, 1, groups, d_state),
        draw(n_heads),
        torch.rand(n_heads, generator=generator) - 4.0,
    )
    found = OURS(*arguments, True, None, state, None)
    expected = REFERENCE(*(each.double() for each in arguments), True, None, state.double(), None)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=STEP_RTOL[dtype], atol=STEP_ATOL[dtype])


@pytest.mark.parametrize("D", [None, (4,), (4, 16)])
@pytest.mark.parametrize("groups", [1, 2])
def test_it_is_mambas_scan_with_heads_as_channels(groups, D):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x, dt, A = draw(2, 65, 4, 16), draw(2, 65, 4), -draw(4).exp()
    B, C = draw(2, 65, groups, 8), draw(2, 65, groups, 8)
    skip, bias = None if D is None else draw(*D), draw(4)
    y, state = OURS(x, dt, A, B, C, skip, bias, True, None, None, None)
    as_channels = None if skip is None else skip.view(4, -1).expand(4, 16).reshape(64)
    u, delta = x.flatten(2), dt.repeat_interleave(16, -1)
    rates = A.repeat_interleave(16)[:, None].repeat(1, 8)
    same, final, _ = selective_scan(
        u, delta, rates, B, C, as_channels, None, bias.repeat_interleave(16), True, None, None
    )
    torch.testing.assert_close(y.flatten(2), same, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(state.flatten(1, 2), final, rtol=1e-4, atol=1e-5)


def check_packed(n_heads, groups, dtype, n_sequences):
    groups = n_heads if groups == "a head each" else groups
    generator = torch.Generator().manual_seed(groups)
    lengths = torch.randint(1, 200, (n_sequences,), generator=generator)
    bounds = F.pad(lengths.cumsum(0), (1, 0))
    seq_len = int(bounds[-1])

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    x = draw(1, seq_len, n_heads, HEAD_DIM).to(dtype)
    dt = F.softplus(draw(1, seq_len, n_heads) - 4)
    A = -0.1 * torch.rand(n_heads, generator=generator)
    B, C = (draw(1, seq_len, groups, D_STATE) / 5).to(dtype), draw(1, seq_len, groups, D_STATE).to(dtype)
    y, states = OURS(x, dt, A, B, C, None, None, False, None, None, bounds)
    for i, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        alone = [each[:, start:end].double() for each in (x, dt, B, C)]
        expected, state = REFERENCE(*alone[:2], A.double(), *alone[2:], None, None, False, None, None, None)
        torch.testing.assert_close(states[i : i + 1].double(), state, rtol=1e-2, atol=3e-3)
        if dtype is torch.float32:
            torch.testing.assert_close(y[:, start:end].double(), expected, rtol=1e-2, atol=3e-3)
