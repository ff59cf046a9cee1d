"""causal-conv1d's published cases, with its tolerances.

From github.com/Dao-AILab/causal-conv1d 1.6.1, tests/test_causal_conv1d.py: inputs are slices of wider
tensors, channels innermost or time; with and without bias, silu, initial and final states; packed rows;
single and few steps; states of packed rows. The oracle is PyTorch's own convolution in float64. Sequences
from 256 on, and all lengths at 4128 channels, are `slow`; narrow dtypes take four of the twelve options,
steps 4 of 64 rows.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from helix_cpu.autograd import Differentiable
from helix_cpu.ops.causal_conv1d import causal_conv1d, causal_conv1d_backward

OURS = Differentiable(
    "causal_conv1d",
    causal_conv1d,
    causal_conv1d_backward,
    leaves=(0, 1, 2, 4),
)
LENGTHS = (1, 2, 8, 16, 32, 64, 128, 129, 130, 151, 256, 372, 512, 784, 1024, 1134, 2048, 4096)
PACKED_LENGTHS = tuple(length for length in LENGTHS if length >= 8 and length not in (129, 130))
WIDTHS = (2, 3, 4)
RTOL = {torch.float32: 3e-4, torch.float16: 3e-3, torch.bfloat16: 1e-2}
ATOL = {torch.float32: 1e-3, torch.float16: 5e-3, torch.bfloat16: 5e-2}
DTYPES = tuple(RTOL)
OPTIONS = {torch.float32: list(itertools.product(WIDTHS, [False, True], [False, True]))}
"""Width, bias and silu: each combination is a case there, and a pass through a loop here."""
OPTIONS[torch.float16] = OPTIONS[torch.bfloat16] = OPTIONS[torch.float32][::3]


def long(values):
    return [pytest.param(value, marks=[pytest.mark.slow] if value >= 256 else []) for value in values]


@pytest.mark.parametrize("innermost", ["channels", "time"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq_len", long(LENGTHS))
def test_forward_and_gradients(seq_len, dtype, innermost):
    for width, bias, silu in OPTIONS[dtype]:
        check(64, seq_len, width, dtype, innermost, bias=bias, silu=silu)


@pytest.mark.slow
@pytest.mark.parametrize("innermost", ["channels", "time"])
@pytest.mark.parametrize("seq_len", [1, 151, 1134])
def test_forward_and_gradients_of_many_channels(seq_len, innermost):
    check(4096 + 32, seq_len, 4, torch.float32, innermost, bias=True, silu=True)


@pytest.mark.parametrize(("initial", "final"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq_len", long(LENGTHS))
def test_forward_and_gradients_with_states(seq_len, dtype, initial, final):
    for width, bias, silu in OPTIONS[dtype]:
        check(64, seq_len, width, dtype, "channels", bias=bias, silu=silu, initial=initial, final=final)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq_len", long(PACKED_LENGTHS))
def test_packed_rows(seq_len, dtype):
    for width, bias, silu in OPTIONS[dtype]:
        generator = torch.Generator().manual_seed(seq_len + 64 + width)
        n = int(torch.randint(1, 5, (1,), generator=generator))
        cuts = torch.randperm(seq_len - 1, generator=generator)[:n].sort().values + 1
        check(64, seq_len, width, dtype, "channels", bias=bias, silu=silu, cuts=cuts.tolist())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seq_len", [1, 4, 5])
@pytest.mark.parametrize(
    "d_model", [2048 + 16, *(pytest.param(each, marks=pytest.mark.slow) for each in (2048, 4096))]
)
def test_a_few_steps_from_a_state(d_model, seq_len, dtype):
    for width, bias, silu in OPTIONS[dtype]:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, seq_len, d_model, generator=generator).to(dtype)
        state = torch.randn(4, width - 1, d_model, generator=generator).to(dtype)
        weight = torch.randn(d_model, width, generator=generator)
        offset = torch.randn(d_model, generator=generator) if bias else None
        y, final = OURS(x, weight, offset, silu, state, None)
        assert torch.equal(final, torch.cat([state, x], dim=1)[:, seq_len:])
        torch.testing.assert_close(
            y.double(), oracle(x, weight, offset, silu, state), rtol=RTOL[dtype], atol=ATOL[dtype]
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d_model", [2048, 2048 + 16, 4096])
def test_states_of_packed_rows_are_their_last_inputs(d_model, dtype):
    generator = torch.Generator().manual_seed(0)
    n_states = 20
    lengths = torch.randint(1, 32, (100,), generator=generator)
    bounds = F.pad(lengths.cumsum(0), (1, 0))
    x = torch.randn(1, int(bounds[-1]), d_model, generator=generator).to(dtype)
    _, states = OURS(x, torch.randn(d_model, n_states + 1), None, False, None, bounds)
    for i, (start, end) in enumerate(itertools.pairwise(bounds.tolist())):
        inputs = F.pad(x[0, max(start, end - n_states) : end], (0, 0, max(0, n_states - (end - start)), 0))
        assert torch.equal(states[i], inputs)


def check(d_model, seq_len, width, dtype, innermost, *, bias, silu, initial=False, final=False, cuts=()):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    batch_size = 1 if cuts else 2
    x = drawn_wider(generator, batch_size, seq_len, d_model, innermost).to(dtype)
    leaves = [
        x,
        draw(d_model, width),
        draw(d_model) if bias else None,
        draw(batch_size, width - 1, d_model).to(dtype) if initial else None,
    ]
    bounds = torch.tensor([0, *cuts, seq_len]) if cuts else None
    grads = draw(batch_size, seq_len, d_model).to(dtype), draw(batch_size, width - 1, d_model).to(dtype)
    ours = run(lambda x, w, b, s: OURS(x, w, b, silu, s, bounds), leaves, grads, final=final)
    exact = run(
        lambda x, w, b, s: exactly(x, w, b, silu, s, [0, *cuts, seq_len]),
        [None if leaf is None else leaf.double() for leaf in leaves],
        [grad.double() for grad in grads],
        final=final,
    )
    main, weights = (RTOL[dtype], ATOL[dtype]), (1e-3, 1e-3)
    tolerances = [main, main, weights, weights, main]
    for found, expected, (rtol, atol) in zip(ours, exact, tolerances, strict=True):
        if expected is not None:
            torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


def drawn_wider(generator, batch_size, seq_len, d_model, innermost):
    """Draw the input as a slice of more channels, beginning at channel 4096 there and at 96 here."""
    before, after = 96, 64
    if innermost == "channels":
        wide = torch.randn(batch_size, seq_len, before + d_model + after, generator=generator)
        return wide[:, :, before : before + d_model]
    wide = torch.randn(batch_size, before + d_model + after, seq_len, generator=generator)
    return wide[:, before : before + d_model].transpose(1, 2)


def run(convolve, leaves, grads, *, final):
    """Return y and the gradients of the leaves; with `final` the state has part in what is differentiated."""
    leaves = [None if leaf is None else leaf.detach().requires_grad_() for leaf in leaves]
    y, state = convolve(*leaves)
    score = (y * grads[0]).sum()
    if final:
        score = score + (state.sigmoid() * grads[1]).sum()
    score.backward()
    return [y.detach(), *(None if leaf is None else leaf.grad for leaf in leaves)]


def exactly(x, weight, bias, silu, state, bounds):
    """Return y of each packed sequence by itself, and the state after the last one."""
    ys = [oracle(x[:, start:end], weight, bias, silu, state) for start, end in itertools.pairwise(bounds)]
    before = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if state is None else state
    return torch.cat(ys, dim=1), torch.cat([before, x], dim=1)[:, x.shape[1] :]


def oracle(x, weight, bias, silu, state):
    x, weight = x.double(), weight.double()
    before = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if state is None else state.double()
    inputs = torch.cat([before, x], dim=1).transpose(1, 2)
    bias = None if bias is None else bias.double()
    y = F.conv1d(inputs, weight[:, None], bias, groups=x.shape[2]).transpose(1, 2)
    return F.silu(y) if silu else y
