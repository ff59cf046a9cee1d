"""Gradient of a causal convolution of any number of taps, given the gradients before the activation.

`slopes` are those gradients g, in float32: the input at p gets the sum over lags j of tap_j g_{p+j}, and the
tap of lag j the sum over t of g_t x_{t-j}.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.causal_conv1d import inputs_at, sequence_of, span_of
from helix_cuda.kernels.chunks import tokens_of


@triton.jit
def of_inputs(
    slopes, weight, grad_last, out, bounds, owners, cu_seqlens, per_row, seq_len, d_model,
    WIDTH: tl.constexpr, BEFORE: tl.constexpr, ENDED: tl.constexpr, SIZE: tl.constexpr, PACKED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of a slot's inputs, or, with `BEFORE`, of those in the state of a sequence."""
    n_blocks = tl.cdiv(d_model, CHANNELS)
    slot = tl.program_id(0) // n_blocks
    channels = tl.program_id(0) % n_blocks * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < d_model
    if BEFORE:
        sequence = slot
        begin, end = span_of(sequence, cu_seqlens, seq_len, PACKED)
        first = begin - (WIDTH - 1)
        stop = begin
        out += (sequence.to(tl.int64) * (WIDTH - 1) - first) * d_model
    else:
        sequence = sequence_of(slot, owners, per_row, PACKED)
        begin, end = span_of(sequence, cu_seqlens, seq_len, PACKED)
        first, stop = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    for tile in range(first, stop, TOKENS):
        tokens = tile + tl.arange(0, TOKENS)
        mask = (tokens < stop)[:, None] & inside[None, :]
        total = tl.zeros([TOKENS, CHANNELS], tl.float32)
        for lag in range(WIDTH):
            at = tokens + lag
            known = mask & ((at >= begin) & (at < end))[:, None]
            slope = tl.load(slopes + at[:, None] * d_model + channels[None, :], mask=known, other=0.0)
            tap = tl.load(weight + channels * WIDTH + WIDTH - 1 - lag, mask=inside, other=0.0)
            total += slope.to(tl.float32) * tap.to(tl.float32)[None, :]
        if ENDED:
            rows = tokens - (end - (WIDTH - 1))
            at = (sequence.to(tl.int64) * (WIDTH - 1) + rows)[:, None] * d_model + channels[None, :]
            total += tl.load(grad_last + at, mask=mask & (rows >= 0)[:, None], other=0.0).to(tl.float32)
        tl.store(out + tokens[:, None] * d_model + channels[None, :], total, mask=mask)


@triton.jit
def of_taps(
    slopes, x, state, sums, bounds, owners, cu_seqlens, per_row, seq_len, d_model, x_stride,
    WIDTH: tl.constexpr, STATEFUL: tl.constexpr, SIZE: tl.constexpr, PACKED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write a slot's part of the gradient of a tap, or past the taps of the bias: the grid's second axis."""
    n_blocks = tl.cdiv(d_model, CHANNELS)
    slot = tl.program_id(0) // n_blocks
    channels = tl.program_id(0) % n_blocks * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < d_model
    k = tl.program_id(1)
    sequence = sequence_of(slot, owners, per_row, PACKED)
    begin, _ = span_of(sequence, cu_seqlens, seq_len, PACKED)
    before = state + sequence.to(tl.int64) * (WIDTH - 1) * d_model
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    total = tl.zeros([TOKENS, CHANNELS], tl.float32)
    for tile in range(first, end, TOKENS):
        tokens = tile + tl.arange(0, TOKENS)
        mask = (tokens < end)[:, None] & inside[None, :]
        slope = tl.load(slopes + tokens[:, None] * d_model + channels[None, :], mask=mask, other=0.0)
        value = tl.full([TOKENS, CHANNELS], 1.0, tl.float32)
        if k < WIDTH:
            value = inputs_at(
                x, before, tokens - (WIDTH - 1) + k, begin, channels, mask, x_stride, d_model, WIDTH, STATEFUL
            )
        total += slope.to(tl.float32) * value
    at = (slot.to(tl.int64) * (WIDTH + 1) + k) * d_model + channels
    tl.store(sums + at, tl.sum(total, axis=0), mask=inside)
