"""Gated linear attention in chunks of 16 tokens, each channel of a key with a decay of its own.

Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4. Of the paper's two levels of chunks this has
the lower alone. With E_ij the decays of each channel from after token j to token i of a chunk, and S_0 the
state before it,

    O = scale Q S_0 + N V,    N_ij = scale * sum over channels of q_i E_ij k_j for j <= i,

where Q holds E_i0 q_i, and the state after the chunk is E_T0 S_0 + sum of (E_Tj k_j) v_j^T. A decay is the
exponential of its own sum of logarithms, never a ratio: channels decay apart, so that N is made of sums of
[T, K] tiles, one for each token j. `scores` makes it for all chunks at once, `walk` takes chunk after chunk.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import columns_of, rows_of, store_rows
from helix_cuda.kernels.rwkv7 import to_end, token_of
from helix_cuda.tuning import tuned

_SCORES = [triton.Config({}, num_warps=w, num_stages=1) for w in (4, 2, 8)]
_WALK = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (16, 4, 3), (16, 2, 3))
]
_STEP = [triton.Config({"BLOCK_V": v}, num_warps=w) for v, w in ((16, 4), (32, 4), (8, 4), (64, 8), (64, 4))]


@tuned(_SCORES, key=["k_dim"])
@triton.jit
def scores(
    q, k, g, squares, bounds, scale, per_row, seq_len, n_heads, k_dim, q_stride, k_stride, g_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr,
):  # fmt: skip
    """Write N of a slot's chunk."""
    slot, head = tl.program_id(0), tl.program_id(1)
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    of_head = head * k_dim
    queries = rows_of(q + of_head, first + at, end, q_stride, rows, k_dim, tl.float32) * scale
    after = tl.zeros([T, BLOCK_K], tl.float32)
    found = tl.zeros([T, T], tl.float32)
    for step in range(T):
        j = T - 1 - step
        key = token_of(k + of_head, first + j, end, k_stride, rows, k_dim)[None, :]
        score = tl.where(at >= j, tl.sum(queries * tl.exp(after) * key, axis=1), 0.0)
        found = tl.where((at == j)[None, :], score[:, None], found)
        logarithm = token_of(g + of_head, first + j, end, g_stride, rows, k_dim)[None, :]
        after += tl.where((at >= j)[:, None], logarithm, 0.0)
    square = squares + (slot * n_heads + head.to(tl.int64)) * T * T
    tl.store(square + at[:, None] * T + at[None, :], found.to(squares.dtype.element_ty))


@tuned(_WALK, key=["k_dim", "v_dim"])
@triton.jit
def walk(
    q, k, v, g, squares, initial_state, o, states, final_state, bounds, firsts,
    scale, per_row, seq_len, n_heads, k_dim, v_dim, q_stride, k_stride, v_stride, g_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, STARTS: tl.constexpr,
    KEEPS: tl.constexpr, PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write a sequence's last state and o, or, if it `KEEPS` them, the states before each chunk instead."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    sequence, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = squares.dtype.element_ty
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    columns = tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    within = rows[:, None] * v_dim + columns[None, :]
    of_sequence = (sequence * n_heads + head.to(tl.int64)) * k_dim * v_dim
    of_head = head * k_dim
    state = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if STARTS:
        state += tl.load(initial_state + of_sequence + within, mask=inside, other=0.0).to(tl.float32)
    first_slot, end_slot = slots_of(sequence, firsts, per_row, PACKED)
    for slot in range(first_slot, end_slot):
        first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
        tokens = first + at
        of_slot = slot * n_heads + head.to(tl.int64)
        held = state.to(DTYPE)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        if KEEPS:
            tl.store(states + of_slot * k_dim * v_dim + within, held, mask=inside)
        else:
            logarithms = rows_of(g + of_head, tokens, end, g_stride, rows, k_dim, tl.float32)
            queries = rows_of(q + of_head, tokens, end, q_stride, rows, k_dim, tl.float32) * scale
            queries = (queries * tl.exp(tl.cumsum(logarithms, axis=0))).to(DTYPE)
            found = tl.dot(queries, held, input_precision=PRECISION)
            square = tl.load(squares + of_slot * T * T + at[:, None] * T + at[None, :])
            found = tl.dot(square, values, found, input_precision=PRECISION)
            store_rows(o + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)
        logarithms = columns_of(g + of_head, tokens, end, g_stride, rows, k_dim, tl.float32)
        state *= tl.exp(tl.sum(logarithms, axis=1))[:, None]
        keys = columns_of(k + of_head, tokens, end, k_stride, rows, k_dim, tl.float32)
        keys *= to_end(g + of_head, tokens, end, g_stride, rows, k_dim)
        state = tl.dot(keys.to(DTYPE), values, state, input_precision=PRECISION)
    tl.store(final_state + of_sequence + within, state, mask=inside)


@tuned(_STEP, key=["k_dim", "v_dim"])
@triton.jit
def step(
    q, k, v, g, initial_state, o, final_state, scale, n_heads, k_dim, v_dim,
    q_stride, k_stride, v_stride, g_stride,
    BLOCK_K: tl.constexpr, STARTS: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write a block of values of o and of the next state of a head, of a batch with one token in each row."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    row, head = (tl.program_id(0) // n_blocks).to(tl.int64), tl.program_id(1)
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    place = (row * n_heads + head) * k_dim * v_dim + rows[:, None] * v_dim + columns[None, :]
    of_head, of_value = head * k_dim, head * v_dim
    value = token_of(v + of_value, row, row + 1, v_stride, columns, v_dim)
    state = token_of(k + of_head, row, row + 1, k_stride, rows, k_dim)[:, None] * value[None, :]
    if STARTS:
        before = tl.load(initial_state + place, mask=inside, other=0.0).to(tl.float32)
        state += tl.exp(token_of(g + of_head, row, row + 1, g_stride, rows, k_dim))[:, None] * before
    tl.store(final_state + place, state, mask=inside)
    query = token_of(q + of_head, row, row + 1, q_stride, rows, k_dim) * scale
    found = tl.sum(query[:, None] * state, axis=0).to(o.dtype.element_ty)
    tl.store(o + row * n_heads * v_dim + of_value + columns, found, mask=columns < v_dim)
