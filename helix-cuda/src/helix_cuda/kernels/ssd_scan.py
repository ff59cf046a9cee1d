"""State-space duality in chunks: states, their passing on, and outputs, by products on tensor cores.

Dao and Gu 2024, section 6: in a chunk of T tokens the outputs are a masked matrix, C B^T times the decays
between two tokens, times the inputs; what came before the chunk enters through the state. A program walks
the chunks of one segment of a sequence with the state of one head (N, P) in registers, so that no state of
a chunk goes to memory. Where the sequences and heads are too few to fill a GPU, there are several segments:
`walk` makes what each adds to the state, `pass_on` the state before each, and `outputs` starts from there.
`walk` also runs back in time, where it makes the gradient of the state after each chunk.

Every decay is the exponential of a difference of running sums (see `helix_cuda.kernels.ssd_steps`) that
the recurrence has too: from a token to another, to the chunk's end, or from its start.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.ssd_steps import decays_of, size_of, steps_of
from helix_cuda.tuning import tuned


@triton.jit
def _outputs(
    x, B, C, D, kept, starts, y, ends, bounds, firsts, per_row, seq_len, n_tokens,
    n_heads, heads_per_group, head_dim, d_state, x_stride, b_stride, c_stride, skip_stride, channel_stride,
    n_segments, chunks_per_segment, HAS_START: tl.constexpr, HAS_SKIP: tl.constexpr, HAS_END: tl.constexpr,
    PACKED: tl.constexpr, FINE: tl.constexpr, T: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write y of one segment, head and block of channels, and with `HAS_END` the state after it."""
    segment, head, channels = _where(n_heads, head_dim, BP)
    _, n_chunks, begin, end = _chunks_of(
        segment, bounds, firsts, per_row, seq_len, n_segments, chunks_per_segment, T, PACKED
    )
    group = head // heads_per_group
    states = tl.arange(0, BN)
    at = tl.arange(0, T)
    is_channel, is_state = channels < head_dim, states < d_state
    cell = cell_of(segment, head, states, channels, n_heads, head_dim, d_state)
    in_state = is_state[:, None] & is_channel[None, :]
    state = tl.zeros([BN, BP], tl.float32)
    if HAS_START:
        state = tl.load(starts + cell, mask=in_state, other=0.0)
    if HAS_SKIP:
        skip = tl.load(D + head * skip_stride + channels * channel_stride, mask=is_channel, other=0.0)
        skip = skip.to(tl.float32)
    for i in range(n_chunks):
        token = begin + i * T
        n_left = (end - token).to(tl.int32)
        inside = at < n_left
        of_head = kept + (head.to(tl.int64) * n_tokens + token) * 4
        size, high, low, high_end, low_end = steps_of(of_head, at, n_left, T, FINE)
        inputs = tl.load(
            x + token * x_stride + at[:, None] * x_stride + (head * head_dim + channels)[None, :],
            mask=inside[:, None] & is_channel[None, :], other=0.0,
        )  # fmt: skip
        c = tl.load(
            C + token * c_stride + at[:, None] * c_stride + (group * d_state + states)[None, :],
            mask=inside[:, None] & is_state[None, :], other=0.0,
        )  # fmt: skip
        bt = tl.load(
            B + token * b_stride + at[None, :] * b_stride + (group * d_state + states)[:, None],
            mask=inside[None, :] & is_state[:, None], other=0.0,
        )  # fmt: skip
        scores = tl.dot(c, bt, input_precision="ieee")
        is_read = (at[:, None] >= at[None, :]) & inside[:, None]
        decays = decays_of(scores, is_read, high[:, None], high[None, :], low[:, None], low[None, :], FINE)
        masked = scores * decays * size[None, :]
        value = tl.dot(c, state.to(c.dtype), input_precision="ieee") * tl.exp(high)[:, None]
        value = tl.dot(masked.to(inputs.dtype), inputs, value, input_precision="ieee")
        if HAS_SKIP:
            value += inputs.to(tl.float32) * skip[None, :]
        tl.store(
            y + (token * n_heads + head) * head_dim + at[:, None] * (n_heads * head_dim) + channels[None, :],
            value, mask=inside[:, None] & is_channel[None, :],
        )  # fmt: skip
        weights = tl.exp(tl.where(inside, (high_end - high) + (low_end - low), float("-inf"))) * size
        weighed = (inputs.to(tl.float32) * weights[:, None]).to(inputs.dtype)
        state = tl.dot(bt, weighed, state * tl.exp(high_end), input_precision="ieee")
    if HAS_END:
        tl.store(ends + cell, state, mask=in_state)


def _configs(*sizes):
    return [
        triton.Config({"BP": channels}, num_warps=warps, num_stages=stages)
        for channels, warps, stages in sizes
    ]


_KEY = ["head_dim", "d_state", "T"]
outputs = tuned(_configs((32, 4, 2), (32, 4, 3), (64, 4, 2), (64, 4, 3), (64, 8, 2)), _KEY)(_outputs)
outputs_of_float32 = tuned(_configs((16, 8, 1), (16, 8, 2), (32, 8, 1)), _KEY)(_outputs)


@triton.jit
def _walk(
    x, B, kept, starts, each, ends, totals, bounds, firsts, per_row, seq_len, n_tokens,
    n_heads, heads_per_group, head_dim, d_state, x_stride, b_stride, n_segments, chunks_per_segment,
    BACK: tl.constexpr, HAS_START: tl.constexpr, HAS_EACH: tl.constexpr, PACKED: tl.constexpr,
    FINE: tl.constexpr, T: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write the state after one segment, and the sum of its decays' logarithms; all of one head.

    With `HAS_EACH` also the state before each chunk, in the dtype of the products. `BACK` goes from the last
    chunk to the first and takes y's gradient for x and C for B: then the state is the gradient of the
    state, and that after each chunk is what `each` gets.
    """
    segment, head, channels = _where(n_heads, head_dim, BP)
    first, n_chunks, begin, end = _chunks_of(
        segment, bounds, firsts, per_row, seq_len, n_segments, chunks_per_segment, T, PACKED
    )
    group = head // heads_per_group
    states = tl.arange(0, BN)
    at = tl.arange(0, T)
    is_channel, is_state = channels < head_dim, states < d_state
    cell = cell_of(segment, head, states, channels, n_heads, head_dim, d_state)
    in_state = is_state[:, None] & is_channel[None, :]
    state = tl.zeros([BN, BP], tl.float32)
    if HAS_START:
        state = tl.load(starts + cell, mask=in_state, other=0.0)
    total = 0.0
    for step in range(n_chunks):
        i = step
        if BACK:
            i = n_chunks - 1 - step
        token = begin + i * T
        n_left = (end - token).to(tl.int32)
        inside = at < n_left
        of_head = kept + (head.to(tl.int64) * n_tokens + token) * 4
        size, high, low, high_end, low_end = steps_of(of_head, at, n_left, T, FINE)
        if BACK:
            weights = tl.where(inside, tl.exp(high), 0.0)
        else:
            weights = tl.exp(tl.where(inside, (high_end - high) + (low_end - low), float("-inf"))) * size
        inputs = tl.load(
            x + token * x_stride + at[:, None] * x_stride + (head * head_dim + channels)[None, :],
            mask=inside[:, None] & is_channel[None, :], other=0.0,
        )  # fmt: skip
        bt = tl.load(
            B + token * b_stride + at[None, :] * b_stride + (group * d_state + states)[:, None],
            mask=inside[None, :] & is_state[:, None], other=0.0,
        )  # fmt: skip
        if HAS_EACH:
            of_chunk = cell_of(first + i, head, states, channels, n_heads, head_dim, d_state)
            tl.store(each + of_chunk, state, mask=in_state)
        weighed = (inputs.to(tl.float32) * weights[:, None]).to(inputs.dtype)
        state = tl.dot(bt, weighed, state * tl.exp(high_end), input_precision="ieee")
        total += high_end
    tl.store(ends + cell, state, mask=in_state)
    if tl.program_id(0) % tl.cdiv(head_dim, BP) == 0:
        tl.store(totals + segment.to(tl.int64) * n_heads + head, total)


walk = tuned(_configs((32, 4, 2), (64, 4, 2), (64, 4, 3), (64, 8, 2)), _KEY)(_walk)
walk_of_float32 = tuned(_configs((16, 8, 1), (16, 8, 2), (32, 8, 1)), _KEY)(_walk)


@triton.jit
def pass_on(
    states, totals, initial, final, n_heads, width, n_segments,
    BACK: tl.constexpr, HAS_INITIAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Turn what each segment adds to the state into the state before it, in place, and write the last.

    A program has a block of the numbers of one sequence's and head's state.
    """
    pair = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < width
    state = tl.zeros([BLOCK], tl.float32)
    if HAS_INITIAL:
        state = tl.load(initial + pair.to(tl.int64) * width + at, mask=inside, other=0.0)
    for step in range(n_segments):
        k = step
        if BACK:
            k = n_segments - 1 - step
        of_head = ((pair // n_heads).to(tl.int64) * n_segments + k) * n_heads + pair % n_heads
        cells = states + of_head * width + at
        added = tl.load(cells, mask=inside, other=0.0)
        tl.store(cells, state, mask=inside)
        state = state * tl.exp(tl.load(totals + of_head)) + added
    tl.store(final + pair.to(tl.int64) * width + at, state, mask=inside)


@triton.jit
def one_step(
    x, dt, A, B, C, D, bias, initial, y, final, n_heads, heads_per_group, head_dim, d_state,
    x_stride, dt_stride, rate_stride, b_stride, c_stride, skip_stride, channel_stride, least, most,
    softplus: tl.constexpr, limited: tl.constexpr, biased: tl.constexpr,
    HAS_SKIP: tl.constexpr, HAS_INITIAL: tl.constexpr, BP: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Run the recurrence for one token: a block of channels of one head and row of the batch."""
    pair, head, channels = _where(n_heads, head_dim, BP)
    row = pair.to(tl.int64)
    group = head // heads_per_group
    states = tl.arange(0, BN)
    is_channel, is_state = channels < head_dim, states < d_state
    size = size_of(dt + row * dt_stride + head, bias + head, least, most, softplus, limited, biased)
    rate = tl.load(A + row * rate_stride + head).to(tl.float32)
    at = x + row * x_stride + head * head_dim + channels
    inputs = tl.load(at, mask=is_channel, other=0.0).to(tl.float32)
    b = tl.load(B + row * b_stride + group * d_state + states, mask=is_state, other=0.0).to(tl.float32)
    c = tl.load(C + row * c_stride + group * d_state + states, mask=is_state, other=0.0).to(tl.float32)
    cell = ((row * n_heads + head) * head_dim + channels[:, None]) * d_state + states[None, :]
    in_state = is_channel[:, None] & is_state[None, :]
    state = (size * inputs)[:, None] * b[None, :]
    if HAS_INITIAL:
        before = tl.load(initial + cell, mask=in_state, other=0.0).to(tl.float32)
        state = before * tl.exp(size * rate) + state
    value = tl.sum(state * c[None, :], axis=1)
    if HAS_SKIP:
        skip = tl.load(D + head * skip_stride + channels * channel_stride, mask=is_channel, other=0.0)
        value += inputs * skip.to(tl.float32)
    tl.store(y + (row * n_heads + head) * head_dim + channels, value, mask=is_channel)
    tl.store(final + cell, state, mask=in_state)


@triton.jit
def _where(n_heads, head_dim, BP: tl.constexpr):
    """Return a program's segment, head and channels. Neighbours have one segment: they share B and C."""
    n_blocks = tl.cdiv(head_dim, BP)
    pair = tl.program_id(0) // n_blocks
    channels = (tl.program_id(0) % n_blocks) * BP + tl.arange(0, BP)
    return pair // n_heads, pair % n_heads, channels


@triton.jit
def _chunks_of(
    segment, bounds, firsts, per_row, seq_len, n_segments, chunks_per_segment,
    T: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Return a segment's first chunk, how many it has, its first token and the end of its tokens."""
    first, stop = slots_of(segment // n_segments, firsts, per_row, PACKED)
    begins = tl.minimum(first + (segment % n_segments) * chunks_per_segment, stop)
    ends = tl.minimum(begins + chunks_per_segment, stop)
    token, _ = tokens_of(tl.maximum(tl.minimum(begins, stop - 1), 0), bounds, per_row, seq_len, T, PACKED)
    _, last = tokens_of(tl.maximum(ends - 1, 0), bounds, per_row, seq_len, T, PACKED)
    return begins, ends - begins, token, last


@triton.jit
def cell_of(row, head, states, channels, n_heads, head_dim, d_state):
    """Return where the numbers (N, P) of a head's state lie, which is kept as (P, N)."""
    of_head = (row.to(tl.int64) * n_heads + head) * head_dim * d_state
    return of_head + channels[None, :] * d_state + states[:, None]
