"""Causal convolution as products with Toeplitz matrices, channel by channel, and the turn that it needs.

A channel's signal is cut into blocks of P tokens, which are columns; block j of the result is the sum over m
of T_m times block j - m, where T_m[i, i'] is the tap of lag m P + i - i'. All batch rows' blocks stand side
by side, those of early tokens first, so that a program stops at the lags that reach its last column.
"""

import triton
import triton.language as tl

from helix_cuda.tuning import tuned

_CONFIGS = [
    triton.Config({"N": 64}, num_warps=4, num_stages=2),
    triton.Config({"N": 128}, num_warps=4, num_stages=2),
    triton.Config({"N": 128}, num_warps=8, num_stages=3),
    triton.Config({"N": 32}, num_warps=4, num_stages=2),
]


@tuned(_CONFIGS, key=["row_len", "n_taps", "n_rows"])
@triton.jit
def toeplitz(
    signal, taps, skip, out, n_rows, n_channels, n_sums, n_blocks, first_block, row_len, n_taps, taps_len,
    signal_step, taps_step,
    SKIPS: tl.constexpr, SPLIT: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """Write blocks of P tokens of one channel's result (rows, channels, row_len), a column each.

    Signals (rows, channels, row_len) are zero past their end. With several `n_sums`, signals of that many
    rows, `signal_step` apart, each with taps of its own, `taps_step` apart, add up to one row of results.
    """
    n_columns = n_rows * n_blocks
    n_tiles = tl.cdiv(n_columns, N)
    channel = tl.program_id(0) // n_tiles
    tile = tl.program_id(0) % n_tiles * N
    columns = tile + tl.arange(0, N)
    known = columns < n_columns
    block = first_block + columns // n_rows
    to = ((columns % n_rows) * n_channels + channel).to(tl.int64) * row_len + block * P
    within = tl.arange(0, P)[:, None]
    lags = within - tl.arange(0, P)[None, :]
    at = to[None, :] + within
    last = first_block + (tl.minimum(tile + N, n_columns) - 1) // n_rows
    n_lags = tl.minimum(last, (n_taps + P - 2) // P) + 1
    own = taps + channel.to(tl.int64) * taps_len
    source = signal
    total = tl.zeros([P, N], tl.float32)
    for _ in range(n_sums):
        ahead = _matrix(own, lags, n_taps)
        for m in range(n_lags):
            matrix = ahead
            ahead = _matrix(own, lags + (m + 1) * P, n_taps)  # on its way while this one is multiplied
            reached = (known & (block >= m))[None, :]
            values = tl.load(source + (at - m * P), mask=reached, other=0.0)
            high = matrix.to(values.dtype)
            total = tl.dot(high, values, total, input_precision="ieee")
            if SPLIT:
                low = matrix.to(tl.float32) - high.to(tl.float32)
                total = tl.dot(low.to(values.dtype), values, total)
        own += taps_step
        source += signal_step
    if SKIPS:
        values = tl.load(signal + at, mask=known[None, :], other=0.0)
        total += tl.load(skip + channel).to(tl.float32) * values.to(tl.float32)
    tl.store(out + at, total, mask=known[None, :])


@triton.jit
def to_channels(
    x, out, seq_len, n_channels, length, batch_stride, time_stride, channel_stride,
    REVERSED: tl.constexpr, PAIRED: tl.constexpr, TIMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Turn (B, L, D) into (B, D, length), zeros behind it; paired, into (B, D/2, length) complex numbers.

    Of a pair of channels one is the real part, one the imaginary; `REVERSED` puts the last token first.
    """
    row, first_time, first_channel = _tile(length, n_channels, TIMES, CHANNELS)
    times = (first_time + tl.arange(0, TIMES))[:, None]
    channels = (first_channel + tl.arange(0, CHANNELS))[None, :]
    source = times
    if REVERSED:
        source = seq_len - 1 - times
    here = x + row * batch_stride + source.to(tl.int64) * time_stride
    known = (times < seq_len) & (channels < n_channels)
    value = tl.load(here + channels.to(tl.int64) * channel_stride, mask=known, other=0.0)
    at, given = _turned(row, first_time, first_channel, length, n_channels, length, PAIRED, TIMES, CHANNELS)
    if PAIRED:
        value = tl.permute(tl.reshape(value, [TIMES, CHANNELS // 2, 2]), [1, 0, 2])
    else:
        value = tl.permute(value, [1, 0])
    tl.store(out + at, value, mask=given)


@triton.jit
def from_channels(
    turned, x, skip, y, seq_len, n_channels, length, x_stride,
    SKIPS: tl.constexpr, REVERSED: tl.constexpr, PAIRED: tl.constexpr,
    TIMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Turn what `to_channels` writes back into y (B, L, D), and add the skip of x to it."""
    row, first_time, first_channel = _tile(seq_len, n_channels, TIMES, CHANNELS)
    at, given = _turned(row, first_time, first_channel, length, n_channels, seq_len, PAIRED, TIMES, CHANNELS)
    value = tl.load(turned + at, mask=given, other=0.0)
    if PAIRED:
        value = tl.reshape(tl.permute(value, [1, 0, 2]), [TIMES, CHANNELS])
    else:
        value = tl.permute(value, [1, 0])
    times = (first_time + tl.arange(0, TIMES))[:, None]
    channels = (first_channel + tl.arange(0, CHANNELS))[None, :]
    known = (times < seq_len) & (channels < n_channels)
    place = times
    if REVERSED:
        place = seq_len - 1 - times
    tokens = row * seq_len + place
    if SKIPS:
        weight = tl.load(skip + channels, mask=channels < n_channels, other=0.0).to(tl.float32)
        own = tl.load(x + tokens * x_stride + channels, mask=known, other=0.0)
        value = value.to(tl.float32) + weight * own.to(tl.float32)
    tl.store(y + tokens * n_channels + channels, value, mask=known)


@triton.jit
def of_one_token(
    x, taps, skip, y, n_channels, x_stride, taps_len, SKIPS: tl.constexpr, CHANNELS: tl.constexpr
):  # fmt: skip
    """Write y of sequences of one token; the first axis of the grid counts them."""
    row = tl.program_id(0).to(tl.int64)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < n_channels
    weight = tl.load(taps + channels.to(tl.int64) * taps_len, mask=known, other=0.0).to(tl.float32)
    if SKIPS:
        weight += tl.load(skip + channels, mask=known, other=0.0).to(tl.float32)
    value = tl.load(x + row * x_stride + channels, mask=known, other=0.0)
    tl.store(y + row * n_channels + channels, weight * value.to(tl.float32), mask=known)


@triton.jit
def of_skip(
    grad_y, x, sums, n_tokens, n_channels, grad_stride, x_stride, tokens_per_program,
    TIMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write this program's part of the gradient of the skip weights; the second axis counts channels."""
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    first = tl.program_id(0).to(tl.int64) * tokens_per_program
    end = tl.minimum(first + tokens_per_program, n_tokens)
    total = tl.zeros([TIMES, CHANNELS], tl.float32)
    for begin in range(first, end, TIMES):
        tokens = begin + tl.arange(0, TIMES)
        known = (tokens < end)[:, None] & (channels < n_channels)[None, :]
        grad = tl.load(grad_y + tokens[:, None] * grad_stride + channels[None, :], mask=known, other=0.0)
        value = tl.load(x + tokens[:, None] * x_stride + channels[None, :], mask=known, other=0.0)
        total += grad.to(tl.float32) * value.to(tl.float32)
    out = sums + tl.program_id(0) * n_channels + channels
    tl.store(out, tl.sum(total, axis=0), mask=channels < n_channels)


@triton.jit
def _matrix(taps, lags, n_taps):
    """Return the taps of lags, zero for one that there is not."""
    return tl.load(taps + lags, mask=(lags >= 0) & (lags < n_taps), other=0.0)


@triton.jit
def _tile(length, n_channels, TIMES: tl.constexpr, CHANNELS: tl.constexpr):
    """Return the batch row, in int64, the first time and channel of a program of a grid of one axis."""
    n_across = tl.cdiv(n_channels, CHANNELS)
    n_along = tl.cdiv(length, TIMES)
    across = tl.program_id(0) % n_across
    rest = tl.program_id(0) // n_across
    return (rest // n_along).to(tl.int64), rest % n_along * TIMES, across * CHANNELS


@triton.jit
def _turned(
    row, first_time, first_channel, length, n_channels, n_times,
    PAIRED: tl.constexpr, TIMES: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return where a tile lies when turned, (channels, times) or (pairs, times, 2), and what is in it."""
    if PAIRED:
        n_pairs = (n_channels + 1) // 2
        pair = (first_channel // 2 + tl.arange(0, CHANNELS // 2))[:, None, None]
        times = (first_time + tl.arange(0, TIMES))[None, :, None]
        part = tl.arange(0, 2)[None, None, :]
        at = ((row * n_pairs + pair) * length + times) * 2 + part
        given = (pair < n_pairs) & (times < n_times) & (part < 2)
    else:
        channels = (first_channel + tl.arange(0, CHANNELS))[:, None]
        times = (first_time + tl.arange(0, TIMES))[None, :]
        at = (row * n_channels + channels) * length + times
        given = (channels < n_channels) & (times < n_times)
    return at, given
