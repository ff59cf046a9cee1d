"""RWKV-7's recurrence in chunks of 16 tokens: what passes from token to token in one is a triangular system.

The generalised delta rule of https://arxiv.org/abs/2503.14456, section 4.1, after the chunks of the delta
rule in https://arxiv.org/abs/2406.06484, section 3. With E_ij the decays of each channel from after token j
to token i of a chunk, S_0 the state before it and u_i = S_{i-1}^T a_i what the transition reads,

    U = A S_0 + M_k V + M_b U,    (M_x)_ij = sum over channels of a_i E_(i-1)j x_j for j < i,
    O = R S_0 + N_k V + N_b U,    (N_x)_ij = sum over channels of r_i E_ij x_j for j <= i,

where A and R hold E_(i-1)0 a_i and E_i0 r_i. A decay is the exponential of its own sum of logarithms, never a
ratio: channels decay apart, so that these products are sums of [T, K] tiles, one for each token j.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import columns_of, inverse_of, rows_of, store_rows
from helix_cuda.tuning import tuned

_CHUNKS = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((4, 1), (2, 1), (8, 1))]
_PASS = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (16, 4, 3), (16, 2, 3))
]


@tuned(_CHUNKS, key=["k_dim", "v_dim"])
@triton.jit
def prepare(
    r, w, k, v, a, b, reads, known, squares, bounds, per_row, seq_len, n_heads, k_dim, v_dim,
    r_stride, w_stride, k_stride, v_stride, a_stride, b_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write (I - M_b)^-1 A and (I - M_b)^-1 M_k V of a slot's chunk, and N_k, N_b, M_k and (I - M_b)^-1."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = reads.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    tokens = first + at
    of_head = head * k_dim
    receptances = rows_of(r + of_head, tokens, end, r_stride, rows, k_dim, tl.float32)
    readers = rows_of(a + of_head, tokens, end, a_stride, rows, k_dim, tl.float32)
    after = tl.zeros([T, BLOCK_K], tl.float32)
    before = tl.zeros([T, BLOCK_K], tl.float32)
    n_k = tl.zeros([T, T], tl.float32)
    n_b = tl.zeros([T, T], tl.float32)
    m_k = tl.zeros([T, T], tl.float32)
    m_b = tl.zeros([T, T], tl.float32)
    for step in range(T):
        j = T - 1 - step
        late, early = decays_from(after, before, j, T)
        key = token_of(k + of_head, first + j, end, k_stride, rows, k_dim)[None, :]
        write = token_of(b + of_head, first + j, end, b_stride, rows, k_dim)[None, :]
        column = (at == j)[None, :]
        n_k = tl.where(column, tl.sum(late * receptances * key, axis=1)[:, None], n_k)
        n_b = tl.where(column, tl.sum(late * receptances * write, axis=1)[:, None], n_b)
        m_k = tl.where(column, tl.sum(early * readers * key, axis=1)[:, None], m_k)
        m_b = tl.where(column, tl.sum(early * readers * write, axis=1)[:, None], m_b)
        logarithm = token_of(w + of_head, first + j, end, w_stride, rows, k_dim)[None, :]
        after += tl.where((at >= j)[:, None], logarithm, 0.0)
        before += tl.where((at > j)[:, None], logarithm, 0.0)
    inverse = inverse_of(-m_b, T, PRECISION)
    square = squares + (slot * n_heads + head.to(tl.int64)) * 4 * T * T + at[:, None] * T + at[None, :]
    tl.store(square, n_k.to(DTYPE))
    tl.store(square + T * T, n_b.to(DTYPE))
    tl.store(square + 2 * T * T, m_k.to(DTYPE))
    tl.store(square + 3 * T * T, inverse.to(DTYPE))
    readers = (readers * tl.exp(before)).to(DTYPE)
    reading = tl.dot(inverse.to(DTYPE), readers, input_precision=PRECISION)
    store_rows(reads + of_head, reading, tokens, end, n_heads * k_dim, rows, k_dim)
    m_k = tl.dot(inverse.to(DTYPE), m_k.to(DTYPE), input_precision=PRECISION).to(DTYPE)
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        found = tl.dot(m_k, values, input_precision=PRECISION)
        store_rows(known + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)


@tuned(_PASS, key=["k_dim", "v_dim"])
@triton.jit
def pass_states(
    w, k, v, b, reads, known, initial_state, states, u, final_state, bounds, firsts,
    per_row, seq_len, n_heads, k_dim, v_dim, w_stride, k_stride, v_stride, b_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, STARTS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write the state before each chunk of a sequence, its U, and the last state; a block of values each."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    sequence, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = u.dtype.element_ty
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    within = rows[:, None] * v_dim + columns[None, :]
    of_sequence = (sequence * n_heads + head.to(tl.int64)) * k_dim * v_dim
    state = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if STARTS:
        state += tl.load(initial_state + of_sequence + within, mask=inside, other=0.0).to(tl.float32)
    first_slot, end_slot = slots_of(sequence, firsts, per_row, PACKED)
    for slot in range(first_slot, end_slot):
        first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
        tokens = first + tl.arange(0, T)
        held = state.to(DTYPE)
        of_slot = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
        tl.store(states + of_slot + within, held, mask=inside)
        reading = rows_of(reads + head * k_dim, tokens, end, n_heads * k_dim, rows, k_dim, DTYPE)
        found = rows_of(known + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, tl.float32)
        found = tl.dot(reading, held, found, input_precision=PRECISION)
        store_rows(u + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)
        left = to_end(w + head * k_dim, tokens, end, w_stride, rows, k_dim)
        logarithms = columns_of(w + head * k_dim, tokens, end, w_stride, rows, k_dim, tl.float32)
        state *= tl.exp(tl.sum(logarithms, axis=1))[:, None]
        keys = columns_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, tl.float32) * left
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        state = tl.dot(keys.to(DTYPE), values, state, input_precision=PRECISION)
        writes = columns_of(b + head * k_dim, tokens, end, b_stride, rows, k_dim, tl.float32) * left
        state = tl.dot(writes.to(DTYPE), found.to(DTYPE), state, input_precision=PRECISION)
    tl.store(final_state + of_sequence + within, state, mask=inside)


@tuned(_CHUNKS, key=["k_dim", "v_dim"])
@triton.jit
def outputs(
    r, w, v, states, u, squares, o, bounds, per_row, seq_len, n_heads, k_dim, v_dim,
    r_stride, w_stride, v_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write o = R S_0 + N_k V + N_b U of a slot's chunk."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = u.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    tokens = first + at
    logarithms = rows_of(w + head * k_dim, tokens, end, w_stride, rows, k_dim, tl.float32)
    receptances = rows_of(r + head * k_dim, tokens, end, r_stride, rows, k_dim, tl.float32)
    receptances = (receptances * tl.exp(tl.cumsum(logarithms, axis=0))).to(DTYPE)
    square = squares + (slot * n_heads + head.to(tl.int64)) * 4 * T * T + at[:, None] * T + at[None, :]
    n_k, n_b = tl.load(square), tl.load(square + T * T)
    state = states + (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim) & (first < end)
        held = tl.load(state + rows[:, None] * v_dim + columns[None, :], mask=inside, other=0.0)
        found = tl.dot(receptances, held, input_precision=PRECISION)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        found = tl.dot(n_k, values, found, input_precision=PRECISION)
        read = rows_of(u + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, DTYPE)
        found = tl.dot(n_b, read, found, input_precision=PRECISION)
        store_rows(o + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)


@triton.jit
def decays_from(after, before, j, T: tl.constexpr):
    """Return E_ij and E_(i-1)j of a token j, zero where i comes too early, from the sums of logarithms."""
    at = tl.arange(0, T)[:, None]
    return tl.where(at >= j, tl.exp(after), 0.0), tl.where(at > j, tl.exp(before), 0.0)


@triton.jit
def token_of(x, token, end, stride, columns, width):
    """Return a token's row in float32, zero from token `end` on."""
    inside = (columns < width) & (token < end)
    return tl.load(x + token * stride + columns, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def to_end(w, tokens, end, stride, rows, width):
    """Return the decays (channels, tokens) from after each token to the chunk's end."""
    inside = (rows[:, None] < width) & (tokens[None, :] + 1 < end)
    at = w + (tokens[None, :] + 1) * stride + rows[:, None]
    return tl.exp(tl.cumsum(tl.load(at, mask=inside, other=0.0).to(tl.float32), axis=1, reverse=True))
