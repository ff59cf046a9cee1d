"""Gradient of a short causal convolution of at most four taps, each input read once.

A program walks along a slot's tokens, with the last three inputs and gradients in registers: a token's
gradient before the activation, g_t, is complete when it comes, and the gradient of the input three tokens
earlier, sum over lags j of tap_j g_{t-3+j}. Its reads run two tokens ahead of it.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.causal_conv1d import sequence_of, silu_slope, span_of
from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.tuning import tuned

_CONFIGS = [
    triton.Config({"CHANNELS": 256}, num_warps=2),
    triton.Config({"CHANNELS": 128}, num_warps=1),
    triton.Config({"CHANNELS": 256}, num_warps=1),
    triton.Config({"CHANNELS": 64}, num_warps=1),
]


@tuned(_CONFIGS, key=["d_model"])
@triton.jit
def narrow(
    x, weight, bias, state, grad_y, grad_last, grad_x, grad_state, sums, bounds, owners, cu_seqlens,
    per_row, seq_len, d_model, x_stride, grad_stride,
    WIDTH: tl.constexpr, SILU: tl.constexpr, BIASED: tl.constexpr, STATEFUL: tl.constexpr,
    ENDED: tl.constexpr, SIZE: tl.constexpr, PACKED: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of x and the state, and this slot's parts of those of the taps and the bias."""
    n_blocks = tl.cdiv(d_model, CHANNELS)
    slot = tl.program_id(0) // n_blocks
    channels = tl.program_id(0) % n_blocks * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < d_model
    first, last = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    sequence = sequence_of(slot, owners, per_row, PACKED)
    begin, end = span_of(sequence, cu_seqlens, seq_len, PACKED)
    rows = sequence.to(tl.int64) * (WIDTH - 1)  # of the states of this sequence

    tap0 = _tap(weight, 0, channels, inside, WIDTH)
    tap1 = _tap(weight, 1, channels, inside, WIDTH)
    tap2 = _tap(weight, 2, channels, inside, WIDTH)
    tap3 = _tap(weight, 3, channels, inside, WIDTH)
    shift = tl.zeros([CHANNELS], tl.float32)
    if BIASED:
        shift = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    before = state + rows * d_model
    x1 = _input(x, before, first - 1, begin, channels, inside, x_stride, d_model, WIDTH, STATEFUL)
    x2 = _input(x, before, first - 2, begin, channels, inside, x_stride, d_model, WIDTH, STATEFUL)
    x3 = _input(x, before, first - 3, begin, channels, inside, x_stride, d_model, WIDTH, STATEFUL)
    g1 = tl.zeros([CHANNELS], tl.float32)
    g2 = tl.zeros([CHANNELS], tl.float32)
    g3 = tl.zeros([CHANNELS], tl.float32)
    sum0 = tl.zeros([CHANNELS], tl.float32)
    sum1 = tl.zeros([CHANNELS], tl.float32)
    sum2 = tl.zeros([CHANNELS], tl.float32)
    sum3 = tl.zeros([CHANNELS], tl.float32)
    sum_bias = tl.zeros([CHANNELS], tl.float32)

    stop = tl.where(first < last, last + 3, first)
    next_x = _token(x, first, end, channels, inside, x_stride)
    next_grad = _token(grad_y, first, end, channels, inside, grad_stride)
    after_x = _token(x, first + 1, end, channels, inside, x_stride)
    after_grad = _token(grad_y, first + 1, end, channels, inside, grad_stride)
    for t in range(first, stop):
        x0 = next_x.to(tl.float32)
        g0 = next_grad.to(tl.float32)
        next_x = after_x
        next_grad = after_grad
        after_x = _token(x, t + 2, end, channels, inside, x_stride)
        after_grad = _token(grad_y, t + 2, end, channels, inside, grad_stride)
        if SILU:
            g0 = g0 * silu_slope(shift + tap0 * x0 + tap1 * x1 + tap2 * x2 + tap3 * x3)
        own = tl.where(t < last, g0, 0.0)
        sum0 += own * x0
        sum1 += own * x1
        sum2 += own * x2
        sum3 += own * x3
        sum_bias += own

        p = t - 3
        value = tap3 * g0 + tap2 * g1 + tap1 * g2 + tap0 * g3
        if ENDED:
            row = p - (end - (WIDTH - 1))
            if (row >= 0) & (p < last):
                at = grad_last + (rows + row) * d_model + channels
                value += tl.load(at, mask=inside, other=0.0).to(tl.float32)
        tl.store(grad_x + p * d_model + channels, value, mask=inside & (p >= first))
        if STATEFUL:
            row = p - begin + WIDTH - 1
            if (p < begin) & (row >= 0):
                tl.store(grad_state + (rows + row) * d_model + channels, value, mask=inside)
        x3 = x2
        x2 = x1
        x1 = x0
        g3 = g2
        g2 = g1
        g1 = g0

    out = sums + slot.to(tl.int64) * (WIDTH + 1) * d_model + channels
    tl.store(out + (WIDTH - 1) * d_model, sum0, mask=inside)
    if WIDTH > 1:
        tl.store(out + (WIDTH - 2) * d_model, sum1, mask=inside)
    if WIDTH > 2:
        tl.store(out + (WIDTH - 3) * d_model, sum2, mask=inside)
    if WIDTH > 3:
        tl.store(out + (WIDTH - 4) * d_model, sum3, mask=inside)
    tl.store(out + WIDTH * d_model, sum_bias, mask=inside)


@triton.jit
def _tap(weight, lag, channels, inside, WIDTH: tl.constexpr):
    at = weight + channels * WIDTH + WIDTH - 1 - lag
    return tl.load(at, mask=inside & (lag < WIDTH), other=0.0).to(tl.float32)


@triton.jit
def _input(
    x, before, at, begin, channels, inside, x_stride, d_model, WIDTH: tl.constexpr, STATEFUL: tl.constexpr
):  # fmt: skip
    """Return one token's inputs, or the state or zeros before the sequence."""
    value = tl.load(x + at * x_stride + channels, mask=inside & (at >= begin), other=0.0).to(tl.float32)
    if STATEFUL:
        row = at - begin + WIDTH - 1
        earlier = inside & (at < begin) & (row >= 0)
        value += tl.load(before + row * d_model + channels, mask=earlier, other=0.0).to(tl.float32)
    return value


@triton.jit
def _token(tensor, at, end, channels, inside, stride):
    return tl.load(tensor + at * stride + channels, mask=inside & (at < end), other=0.0)
