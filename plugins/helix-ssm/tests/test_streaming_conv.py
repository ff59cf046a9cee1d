from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch

from helix_ssm.layers import streaming_conv
from helix_ssm.layers.streaming_conv import StreamingConvState, extend, n_lags


def draw(seq_len, *, dtype=torch.float64, batch_size=2, d_model=3):
    generator = torch.Generator().manual_seed(seq_len)
    x = torch.randn(batch_size, seq_len, d_model, generator=generator, dtype=dtype)
    return x, torch.randn(d_model, 4 * seq_len + 2, generator=generator, dtype=dtype)


def convolve(x, kernel):
    """Convolve by numpy, channel by channel, in float64."""
    x, kernel = x.detach().double().numpy(), kernel.detach().double().numpy()
    y = np.zeros(x.shape)
    for b in range(x.shape[0]):
        for d in range(x.shape[2]):
            y[b, :, d] = np.convolve(x[b, :, d], kernel[d])[: x.shape[1]]
    return torch.from_numpy(y)


def run(x, kernel, lengths):
    """Extend over x in chunks, each given no lag more than it says that it needs."""
    state, outputs = StreamingConvState(), []
    for chunk in torch.split(x, lengths, dim=1):
        given = n_lags(state.n_tokens, chunk.shape[1])
        y, state = extend(kernel[:, :given], chunk, state)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("seq_len", [1, 2, 31, 64, 300])
def test_token_by_token_is_the_whole_convolution(seq_len, dtype, tolerance):
    x, kernel = draw(seq_len, dtype=dtype)
    expected = convolve(x, kernel)
    y, state = run(x, kernel, [1] * seq_len)
    assert y.dtype == dtype
    assert state.n_tokens == seq_len
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()


def test_every_cut_in_two_is_the_whole_convolution():
    x, kernel = draw(40)
    expected = convolve(x, kernel)
    for first in range(41):
        y, _ = run(x, kernel, [first, 40 - first])
        assert (y - expected).abs().max() <= 1e-10 * expected.abs().max(), first


@pytest.mark.parametrize("seed", range(5))
def test_any_chunks_are_the_whole_convolution(seed):
    x, kernel = draw(517)
    expected, rng, lengths = convolve(x, kernel), random.Random(seed), []
    while sum(lengths) < 517:
        lengths.append(min(rng.choice([0, 1, 2, 3, 17, 64, 100]), 517 - sum(lengths)))
    y, _ = run(x, kernel, lengths)
    assert (y - expected).abs().max() <= 1e-10 * expected.abs().max(), lengths


def test_gradients_are_those_of_the_whole_convolution():
    x, kernel = draw(23)
    x.requires_grad_()
    kernel.requires_grad_()
    y, _ = run(x, kernel, [5, 1, 1, 9, 7])
    weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
    found = torch.autograd.grad((weights * y).sum(), [x, kernel])
    padded = torch.nn.functional.pad(x.transpose(1, 2), (22, 0))
    whole = torch.nn.functional.conv1d(padded, kernel[:, None, :23].flip(-1), groups=3).transpose(1, 2)
    expected = torch.autograd.grad((weights * whole).sum(), [x, kernel])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_a_given_state_stays_valid():
    x, kernel = draw(20)
    _, state = run(x[:, :11], kernel, [11])
    first, _ = extend(kernel, x[:, 11:], state)
    again, _ = extend(kernel, x[:, 11:], state)
    assert first.equal(again)


def test_blocks_are_the_binary_digits_of_the_number_of_tokens():
    x, kernel = draw(13)
    _, state = run(x, kernel, [1] * 13)
    assert [block.shape for block in state.blocks] == [(2, 8, 3), (2, 4, 3), (2, 1, 3)]
    assert [tensor.shape for tensor in state.pending] == [block.shape for block in state.blocks]
    assert torch.cat(state.blocks, dim=1).equal(x)


def test_a_token_does_not_copy_what_it_does_not_merge():
    """Tensors are shared from state to state; all copies together are O(log T) for each token."""
    seq_len = 1024
    x, kernel = draw(seq_len, batch_size=1, d_model=1)
    state, copied = StreamingConvState(), 0
    for t in range(seq_len):
        old = state
        _, state = extend(kernel, x[:, t : t + 1], old)
        kept = len(state.blocks) - 1
        assert all(a is b for a, b in zip(old.blocks[:kept], state.blocks[:kept], strict=True))
        assert all(a is b for a, b in zip(old.pending[:kept], state.pending[:kept], strict=True))
        copied += state.blocks[-1].shape[1]
    assert copied <= seq_len * (math.log2(seq_len) / 2 + 1)


def test_multiply_adds_and_lags_grow_as_l_log_squared_l(monkeypatch):
    """Exact counts: the tiles of U inputs cost U^2 directly or 3 FFTs of 2U, and there are T / 2U of them."""
    tile, cost = streaming_conv._tile, [0.0]

    def counted(block, kernel):
        length = block.shape[1]
        by_fft = 3 * 2.5 * (2 * length) * math.log2(2 * length) + 6 * length
        cost[0] += length**2 if length <= streaming_conv._DIRECT else by_fft
        return tile(block, kernel)

    monkeypatch.setattr(streaming_conv, "_tile", counted)
    x, kernel = draw(2048, dtype=torch.float32, batch_size=1, d_model=1)
    state, costs, lags, total_lags = StreamingConvState(), {}, {}, 0
    for t in range(2048):
        total_lags += n_lags(t, 1)
        _, state = extend(kernel, x[:, t : t + 1], state)
        if (t + 1).bit_count() == 1:
            costs[t + 1], lags[t + 1] = cost[0] / (t + 1), total_lags / (t + 1)
    # A direct sum over the past would take (T + 1) / 2 multiply-adds a token: 4 times more at 4 times T.
    assert costs[2048] < 2 * costs[512]
    assert costs[2048] < 15 * math.log2(2048) ** 2 / 2 < 2048 / 2
    # A power of two 2^k divides T / 2^(k+1) of the times exactly and then asks for 2^(k+1) lags.
    assert lags == {t: math.log2(t) + 2 for t in lags}


def test_half_precision_inputs_are_summed_in_float32():
    x, kernel = draw(300, dtype=torch.float32)
    y, state = run(x.bfloat16(), kernel, [1] * 300)
    assert y.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in state.pending} == {torch.float32}
    expected = convolve(x.bfloat16(), kernel)
    assert (y - expected).abs().max() <= 2**-7 * expected.abs().max()
