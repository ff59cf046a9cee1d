"""The gradient of state-space duality, chunk by chunk, given the state before and its gradient after each.

The formulas are those of the chunk form's derivative (Dao and Gu 2024, section 6). What is between two
tokens is held as (writer j, reader i), so that no matrix has to be turned:

- writes (j, i) are C_i . B_j, weighed by the decay from j to i and the step dt_j where they multiply x;
- grad_writes (j, i) are dy_i . x_j, weighed in the same way: the gradient of the products C_i . B_j.

dt_t A has as its gradient the sum over all pairs of tokens j < t <= i of grad_writes times C_i . B_j in the
chunk, and of what goes through the states where pairs reach over its borders. They are summed as they are
and not as differences of row and column sums, whose rounding would outweigh strong decays.
`pairs`, `inputs` and `projections` each leave a part of it, and `ssd_steps.sums_backward` adds them up. A
program of theirs has one chunk and some heads of a group, and keeps its sums over these in registers.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.kernels.ssd_scan import cell_of
from helix_cuda.kernels.ssd_steps import decays_of, steps_of
from helix_cuda.tuning import tuned


def _configs(*sizes):
    return [triton.Config({}, num_warps=warps, num_stages=stages) for warps, stages in sizes]


@triton.jit
def _pairs(
    grad_y, x, B, C, kept, grad_sizes, changes, grad_scores, bounds, per_row, seq_len, n_tokens, n_heads,
    heads_per_group, head_dim, d_state, grad_stride, x_stride, b_stride, c_stride, n_splits, heads_per_split,
    PACKED: tl.constexpr, FINE: tl.constexpr, T: tl.constexpr, BP: tl.constexpr, P_BLOCKS: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Write what pairs of tokens add to the gradients of C B^T, of the step sizes and of the decays."""
    chunk, group, begin, stop = _where(n_heads, heads_per_group, n_splits, heads_per_split)
    first, end = tokens_of(chunk, bounds, per_row, seq_len, T, PACKED)
    n_left = (end - first).to(tl.int32)
    at = tl.arange(0, T)
    inside = at < n_left
    scores = _scores(B, C, first, at, group, inside, d_state, b_stride, c_stride, BN)
    grad_score = tl.zeros([T, T], tl.float32)
    for head in range(begin, stop):
        of_head = tl.cast(head, tl.int64) * n_tokens + first
        size, high, low, _, _ = steps_of(kept + of_head * 4, at, n_left, T, FINE)
        is_read = (at[:, None] <= at[None, :]) & inside[None, :]
        decays = decays_of(scores, is_read, high[None, :], high[:, None], low[None, :], low[:, None], FINE)
        grad_writes = tl.zeros([T, T], tl.float32)
        for block in tl.static_range(P_BLOCKS):
            channels = block * BP + tl.arange(0, BP)
            is_channel = channels < head_dim
            columns = head * head_dim + channels
            value = _rows(x + first * x_stride, at, columns, inside, is_channel, x_stride)
            grad_t = _columns(grad_y + first * grad_stride, at, columns, inside, is_channel, grad_stride)
            grad_writes = tl.dot(value, grad_t, grad_writes, input_precision="ieee")
        grad_writes *= decays
        tl.store(grad_sizes + of_head + at, tl.sum(grad_writes * scores, axis=1), mask=inside)
        grad_writes *= size[:, None]
        grad_score += grad_writes
        from_here = tl.cumsum(grad_writes * scores, axis=1, reverse=True)
        passing = tl.sum(tl.where(at[:, None] < at[None, :], from_here, 0.0), axis=0)
        tl.store(changes + of_head + at, passing, mask=inside)
    part = tl.program_id(0).to(tl.int64)
    tl.store(grad_scores + part * (T * T) + at[:, None] * T + at[None, :], grad_score)


@triton.jit
def _inputs(
    grad_y, x, B, C, D, kept, after, grad_x, leaves, lefts, grad_skips, bounds, per_row, seq_len, n_tokens,
    n_heads, heads_per_group, head_dim, d_state, grad_stride, x_stride, b_stride, c_stride, skip_stride,
    channel_stride, n_splits, heads_per_split, HAS_SKIP: tl.constexpr, PACKED: tl.constexpr,
    FINE: tl.constexpr, T: tl.constexpr, BP: tl.constexpr, P_BLOCKS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write the gradients of x and of D, and that of the step sizes where they multiply what a token leaves.

    What it leaves is in the state after the chunk, whose gradient is `after`.
    """
    chunk, group, begin, stop = _where(n_heads, heads_per_group, n_splits, heads_per_split)
    first, end = tokens_of(chunk, bounds, per_row, seq_len, T, PACKED)
    n_left = (end - first).to(tl.int32)
    at, states = tl.arange(0, T), tl.arange(0, BN)
    inside, is_state = at < n_left, states < d_state
    b = _rows(B + first * b_stride, at, group * d_state + states, inside, is_state, b_stride)
    scores = _scores(B, C, first, at, group, inside, d_state, b_stride, c_stride, BN)
    for head in range(begin, stop):
        of_head = tl.cast(head, tl.int64) * n_tokens + first
        size, high, low, high_end, low_end = steps_of(kept + of_head * 4, at, n_left, T, FINE)
        is_read = (at[:, None] <= at[None, :]) & inside[None, :]
        decays = decays_of(scores, is_read, high[None, :], high[:, None], low[None, :], low[:, None], FINE)
        to_end = tl.exp(tl.where(inside, (high_end - high) + (low_end - low), float("-inf")))
        writes = (scores * decays * size[:, None]).to(b.dtype)
        into = tl.zeros([T], tl.float32)
        for block in tl.static_range(P_BLOCKS):
            channels = block * BP + tl.arange(0, BP)
            is_channel = channels < head_dim
            columns = head * head_dim + channels
            value = _rows(x + first * x_stride, at, columns, inside, is_channel, x_stride)
            grad = _rows(grad_y + first * grad_stride, at, columns, inside, is_channel, grad_stride)
            cell = cell_of(chunk, head, states, channels, n_heads, head_dim, d_state)
            in_state = is_state[:, None] & is_channel[None, :] & (n_left > 0)
            g = tl.load(after + cell, mask=in_state, other=0.0)
            found = tl.dot(b, g, input_precision="ieee") * to_end[:, None]
            into += tl.sum(found * value.to(tl.float32), axis=1)
            found = tl.dot(writes, grad, found * size[:, None], input_precision="ieee")
            if HAS_SKIP:
                skip_at = D + head * skip_stride + channels * channel_stride
                skip = tl.load(skip_at, mask=is_channel, other=0.0).to(tl.float32)
                found += grad.to(tl.float32) * skip[None, :]
                tl.store(
                    grad_skips + (chunk.to(tl.int64) * n_heads + head) * head_dim + channels,
                    tl.sum(grad.to(tl.float32) * value.to(tl.float32), axis=0), mask=is_channel,
                )  # fmt: skip
            tl.store(
                grad_x + (first * n_heads + head) * head_dim + at[:, None] * (n_heads * head_dim)
                + channels[None, :],
                found, mask=inside[:, None] & is_channel[None, :],
            )  # fmt: skip
        tl.store(leaves + of_head + at, into, mask=inside)
        tl.store(lefts + of_head + at, into * size, mask=inside)


@triton.jit
def _projections(
    grad_y, x, C, kept, before, after, entries, kepts, grad_Bs, grad_Cs, bounds, per_row, seq_len,
    n_tokens, n_heads, heads_per_group, head_dim, d_state, grad_stride, x_stride, c_stride, n_splits,
    heads_per_split, PACKED: tl.constexpr, FINE: tl.constexpr, T: tl.constexpr, BP: tl.constexpr,
    P_BLOCKS: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Write what the states add to the gradients of B, C (states, tokens) and the decays.

    `before` is the state before each chunk, `after` the gradient of that after it.
    """
    chunk, group, begin, stop = _where(n_heads, heads_per_group, n_splits, heads_per_split)
    first, end = tokens_of(chunk, bounds, per_row, seq_len, T, PACKED)
    n_left = (end - first).to(tl.int32)
    at, states = tl.arange(0, T), tl.arange(0, BN)
    inside, is_state = at < n_left, states < d_state
    ct = _columns(C + first * c_stride, at, group * d_state + states, inside, is_state, c_stride)
    grad_bt = tl.zeros([BN, T], tl.float32)
    grad_ct = tl.zeros([BN, T], tl.float32)
    for head in range(begin, stop):
        of_head = tl.cast(head, tl.int64) * n_tokens + first
        size, high, low, high_end, low_end = steps_of(kept + of_head * 4, at, n_left, T, FINE)
        from_start = tl.exp(high)
        weights = tl.exp(tl.where(inside, (high_end - high) + (low_end - low), float("-inf"))) * size
        over = tl.zeros([BP], tl.float32)
        read = tl.zeros([BN, T], tl.float32)
        for block in tl.static_range(P_BLOCKS):
            channels = block * BP + tl.arange(0, BP)
            is_channel = channels < head_dim
            columns = head * head_dim + channels
            value_t = _columns(x + first * x_stride, at, columns, inside, is_channel, x_stride)
            grad_t = _columns(grad_y + first * grad_stride, at, columns, inside, is_channel, grad_stride)
            cell = cell_of(chunk, head, states, channels, n_heads, head_dim, d_state)
            in_state = is_state[:, None] & is_channel[None, :] & (n_left > 0)
            h = tl.load(before + cell, mask=in_state, other=0.0)
            g = tl.load(after + cell, mask=in_state, other=0.0)
            over += tl.sum(h.to(tl.float32) * g.to(tl.float32), axis=0)
            read = tl.dot(h, grad_t, read, input_precision="ieee")
            weighed = (value_t.to(tl.float32) * weights[None, :]).to(value_t.dtype)
            grad_bt = tl.dot(g, weighed, grad_bt, input_precision="ieee")
        read *= from_start[None, :]
        grad_ct += read
        tl.store(entries + of_head + at, tl.sum(read * ct.to(tl.float32), axis=0), mask=inside)
        tl.store(kepts + chunk * n_heads + head, tl.exp(high_end) * tl.sum(over, axis=0))
    of_part = tl.program_id(0).to(tl.int64) * (BN * T) + states[:, None] * T + at[None, :]
    tl.store(grad_Bs + of_part, grad_bt)
    tl.store(grad_Cs + of_part, grad_ct)


_KEY = ["head_dim", "d_state", "T"]
pairs = tuned(_configs((4, 2), (4, 1), (8, 1), (8, 2)), _KEY)(_pairs)
pairs_of_float32 = tuned(_configs((8, 1), (8, 2), (4, 1)), _KEY)(_pairs)
inputs = tuned(_configs((4, 2), (4, 1), (8, 1), (8, 2)), _KEY)(_inputs)
inputs_of_float32 = tuned(_configs((8, 1), (8, 2), (4, 1)), _KEY)(_inputs)
projections = tuned(_configs((8, 2), (8, 1), (4, 1), (4, 2)), _KEY)(_projections)


@tuned(_configs((8, 1), (8, 2), (4, 1)), key=["d_state", "T"])
@triton.jit
def collect(
    B, C, grad_scores, grad_Bs, grad_Cs, grad_B, grad_C, bounds, per_row, seq_len, n_groups, d_state,
    b_stride, c_stride, n_splits, PACKED: tl.constexpr, T: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Add up the parts of one chunk and group, and write the gradients of its B and C."""
    pair = tl.program_id(0)
    chunk, group = pair // n_groups, pair % n_groups
    first, end = tokens_of(chunk, bounds, per_row, seq_len, T, PACKED)
    at, states = tl.arange(0, T), tl.arange(0, BN)
    inside = (first + at < end)[:, None] & (states < d_state)[None, :]
    columns = (group * d_state + states)[None, :]
    b = tl.load(B + first * b_stride + at[:, None] * b_stride + columns, mask=inside, other=0.0)
    c = tl.load(C + first * c_stride + at[:, None] * c_stride + columns, mask=inside, other=0.0)
    by_writer, by_reader = tl.zeros([T, T], tl.float32), tl.zeros([T, T], tl.float32)
    grad_b, grad_c = tl.zeros([T, BN], tl.float32), tl.zeros([T, BN], tl.float32)
    for split in range(n_splits):
        part = pair.to(tl.int64) * n_splits + split
        by_writer += tl.load(grad_scores + part * (T * T) + at[:, None] * T + at[None, :])
        by_reader += tl.load(grad_scores + part * (T * T) + at[None, :] * T + at[:, None])
        of_part = part * (BN * T) + states[None, :] * T + at[:, None]
        grad_b += tl.load(grad_Bs + of_part)
        grad_c += tl.load(grad_Cs + of_part)
    grad_b = tl.dot(by_writer.to(c.dtype), c, grad_b, input_precision="ieee")
    grad_c = tl.dot(by_reader.to(b.dtype), b, grad_c, input_precision="ieee")
    to = first * (n_groups * d_state) + at[:, None] * (n_groups * d_state) + columns
    tl.store(grad_B + to, grad_b, mask=inside)
    tl.store(grad_C + to, grad_c, mask=inside)


@triton.jit
def _where(n_heads, heads_per_group, n_splits, heads_per_split):
    """Return a program's chunk, group and heads."""
    split = tl.program_id(0) % n_splits
    pair = tl.program_id(0) // n_splits
    n_groups = n_heads // heads_per_group
    group = pair % n_groups
    begin = group * heads_per_group + split * heads_per_split
    return pair // n_groups, group, begin, tl.minimum(begin + heads_per_split, (group + 1) * heads_per_group)


@triton.jit
def _scores(B, C, first, at, group, inside, d_state, b_stride, c_stride, BN: tl.constexpr):
    """Return the products B_j . C_i of a chunk (T, T)."""
    states = tl.arange(0, BN)
    b = _rows(B + first * b_stride, at, group * d_state + states, inside, states < d_state, b_stride)
    ct = _columns(C + first * c_stride, at, group * d_state + states, inside, states < d_state, c_stride)
    return tl.dot(b, ct, input_precision="ieee")


@triton.jit
def _rows(start, at, columns, inside, is_column, stride):
    """Read a chunk's rows (T, columns)."""
    mask = inside[:, None] & is_column[None, :]
    return tl.load(start + at[:, None] * stride + columns[None, :], mask=mask, other=0.0)


@triton.jit
def _columns(start, at, columns, inside, is_column, stride):
    """Read the same as (columns, T); to read again is safer than to turn what lies in shared memory."""
    mask = inside[None, :] & is_column[:, None]
    return tl.load(start + at[None, :] * stride + columns[:, None], mask=mask, other=0.0)
