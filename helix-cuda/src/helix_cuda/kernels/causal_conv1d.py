"""Short causal convolution: a program for a slot of tokens of one sequence and a block of channels.

A thread reads 16 bytes along the channels. Each tap reads the inputs again, a token further on, from the
cache nearest to it: memory is read once. After the programs of the slots come those of the sequences, which
copy the last inputs.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.tuning import tuned

_CONFIGS = [
    triton.Config({"TOKENS": 16, "CHANNELS": 256}, num_warps=4),
    triton.Config({"TOKENS": 16, "CHANNELS": 128}, num_warps=4),
    triton.Config({"TOKENS": 32, "CHANNELS": 128}, num_warps=4),
    triton.Config({"TOKENS": 8, "CHANNELS": 256}, num_warps=2),
]


@tuned(_CONFIGS, key=["d_model"])
@triton.jit
def forward(
    x, weight, bias, state, grad_y, y, last, bounds, owners, cu_seqlens,
    per_row, seq_len, n_slots, d_model, x_stride, grad_stride,
    WIDTH: tl.constexpr, TAPS: tl.constexpr, SILU: tl.constexpr, BIASED: tl.constexpr, STATEFUL: tl.constexpr,
    SLOPE: tl.constexpr, SIZE: tl.constexpr, PACKED: tl.constexpr,
    TOKENS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write y, or with `SLOPE` the gradient before the activation, and the last inputs of each sequence."""
    n_blocks = tl.cdiv(d_model, CHANNELS)
    slot = tl.program_id(0) // n_blocks
    channels = tl.program_id(0) % n_blocks * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < d_model
    if slot < n_slots:
        first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
        sequence = sequence_of(slot, owners, per_row, PACKED)
        begin, _ = span_of(sequence, cu_seqlens, seq_len, PACKED)
        before = state + sequence.to(tl.int64) * (WIDTH - 1) * d_model
        taps = _few(weight, channels, inside, WIDTH, TAPS)
        shift = tl.zeros([CHANNELS], tl.float32)
        if BIASED:
            shift = tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
        for tile in range(first, end, TOKENS):
            tokens = tile + tl.arange(0, TOKENS)
            mask = (tokens < end)[:, None] & inside[None, :]
            total = tl.zeros([TOKENS, CHANNELS], tl.float32) + shift[None, :]
            if TAPS:
                for k in tl.static_range(WIDTH):
                    value = inputs_at(
                        x, before, tokens - (WIDTH - 1) + k, begin, channels, mask, x_stride, d_model,
                        WIDTH, STATEFUL,
                    )  # fmt: skip
                    total += value * _one_of(taps, k, TAPS)[None, :]
            else:
                for k in range(WIDTH):
                    value = inputs_at(
                        x, before, tokens - (WIDTH - 1) + k, begin, channels, mask, x_stride, d_model,
                        WIDTH, STATEFUL,
                    )  # fmt: skip
                    tap = tl.load(weight + channels * WIDTH + k, mask=inside, other=0.0).to(tl.float32)
                    total += value * tap[None, :]
            if SLOPE:
                at = tokens[:, None] * grad_stride + channels[None, :]
                total = tl.load(grad_y + at, mask=mask, other=0.0).to(tl.float32) * silu_slope(total)
            elif SILU:
                total = total * tl.sigmoid(total)
            tl.store(y + tokens[:, None] * d_model + channels[None, :], total, mask=mask)
    else:
        sequence = slot - n_slots
        begin, end = span_of(sequence, cu_seqlens, seq_len, PACKED)
        first_row = sequence.to(tl.int64) * (WIDTH - 1)
        for row in range(0, WIDTH - 1, TOKENS):
            rows = row + tl.arange(0, TOKENS)
            mask = (rows < WIDTH - 1)[:, None] & inside[None, :]
            value = inputs_at(
                x, state + first_row * d_model, end - (WIDTH - 1) + rows, begin, channels, mask, x_stride,
                d_model, WIDTH, STATEFUL,
            )  # fmt: skip
            tl.store(last + (first_row + rows[:, None]) * d_model + channels[None, :], value, mask=mask)


@triton.jit
def step(
    x, weight, bias, state, y, last, d_model, x_stride,
    WIDTH: tl.constexpr, SILU: tl.constexpr, BIASED: tl.constexpr, STATEFUL: tl.constexpr,
    CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write y and the last inputs of sequences of one token; the first axis of the grid counts them."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channels < d_model
    newest = tl.load(x + row * x_stride + channels, mask=inside, other=0.0)
    tap = tl.load(weight + channels * WIDTH + WIDTH - 1, mask=inside, other=0.0).to(tl.float32)
    total = newest.to(tl.float32) * tap
    if BIASED:
        total += tl.load(bias + channels, mask=inside, other=0.0).to(tl.float32)
    at = row * (WIDTH - 1) * d_model + channels
    for k in range(WIDTH - 1):
        value = tl.zeros([CHANNELS], tl.float32)
        if STATEFUL:
            value = tl.load(state + at + k * d_model, mask=inside, other=0.0).to(tl.float32)
        total += value * tl.load(weight + channels * WIDTH + k, mask=inside, other=0.0).to(tl.float32)
        if k > 0:
            tl.store(last + at + (k - 1) * d_model, value, mask=inside)
    if WIDTH > 1:
        tl.store(last + at + (WIDTH - 2) * d_model, newest, mask=inside)
    if SILU:
        total = total * tl.sigmoid(total)
    tl.store(y + row * d_model + channels, total, mask=inside)


@triton.jit
def sequence_of(slot, owners, per_row, PACKED: tl.constexpr):
    """Return which sequence a slot's tokens are of."""
    return tl.load(owners + slot) if PACKED else slot // per_row


@triton.jit
def span_of(sequence, cu_seqlens, seq_len, PACKED: tl.constexpr):
    """Return the first token of a sequence and the end of its tokens, in int64."""
    if PACKED:
        begin = tl.load(cu_seqlens + sequence).to(tl.int64)
        end = tl.load(cu_seqlens + sequence + 1).to(tl.int64)
    else:
        begin = sequence.to(tl.int64) * seq_len
        end = begin + seq_len
    return begin, end


@triton.jit
def inputs_at(
    x, before, at, begin, channels, mask, x_stride, d_model, WIDTH: tl.constexpr, STATEFUL: tl.constexpr
):  # fmt: skip
    """Return the inputs of tokens, (tokens, channels); of those before the sequence, its state or zeros."""
    given = mask & (at >= begin)[:, None]
    value = tl.load(x + at[:, None] * x_stride + channels[None, :], mask=given, other=0.0).to(tl.float32)
    if STATEFUL:
        earlier = before + (at - begin + WIDTH - 1)[:, None] * d_model + channels[None, :]
        value += tl.load(earlier, mask=mask & (at < begin)[:, None], other=0.0).to(tl.float32)
    return value


@triton.jit
def silu_slope(value):
    """Return the derivative of x sigmoid(x)."""
    s = tl.sigmoid(value)
    return s * (1.0 + value * (1.0 - s))


@triton.jit
def _few(weight, channels, inside, WIDTH: tl.constexpr, TAPS: tl.constexpr):
    """Return all taps of the channels, (channels, TAPS), in reads that lie side by side."""
    k = tl.arange(0, TAPS or 1)
    mask = inside[:, None] & (k < WIDTH)[None, :]
    return tl.load(weight + channels[:, None] * WIDTH + k[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _one_of(taps, k, TAPS: tl.constexpr):
    return tl.sum(tl.where(tl.arange(0, TAPS)[None, :] == k, taps, 0.0), axis=1)
