"""The gradient of RWKV-7's recurrence, in the chunks of its forward pass and with the names from there.

That pass is made again up to the states S and U. From the last chunk to the first goes the gradient of the
state, G; with it comes dU = N_b^T dO + (E_Tj b_j) G, and from there all chunks are taken at once. U solves
(I - M_b) U = A S_0 + M_k V, so that with Y = (I - M_b)^-T dU

    dV = N_k^T dO + M_k^T Y + (E_Tj k_j) G,    dN_k = dO V^T,    dM_k = Y V^T,    dA = Y S_0^T,

and with U in the place of V for b. What a decay E_ij takes goes to w of each token after j up to i.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import columns_of, matrix_of, rows_of, store_rows
from helix_cuda.kernels.rwkv7 import decays_from, token_of
from helix_cuda.tuning import tuned

_CHUNKS = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((8, 1), (4, 1), (2, 1))]
_PASS = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (16, 4, 3), (16, 2, 3))
]


@tuned(_PASS, key=["k_dim", "v_dim"])
@triton.jit
def pass_back(
    r, w, b, reads, squares, grad_o, grad_final, grad_states, grad_u, grad_initial, bounds, firsts,
    per_row, seq_len, n_heads, k_dim, v_dim, r_stride, w_stride, b_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, ENDS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the state after each chunk of a sequence, of U, and of the first state."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    sequence, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = grad_u.dtype.element_ty
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    at = tl.arange(0, T)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    within = rows[:, None] * v_dim + columns[None, :]
    of_sequence = (sequence * n_heads + head.to(tl.int64)) * k_dim * v_dim
    slope = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if ENDS:
        slope += tl.load(grad_final + of_sequence + within, mask=inside, other=0.0).to(tl.float32)
    first_slot, end_slot = slots_of(sequence, firsts, per_row, PACKED)
    for step in range(first_slot, end_slot):
        slot = end_slot - 1 - (step - first_slot)
        first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
        tokens = first + at
        held = slope.to(DTYPE)
        of_slot = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
        tl.store(grad_states + of_slot + within, held, mask=inside)
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
        square = squares + ((slot * n_heads + head.to(tl.int64)) * 4 + 1) * T * T
        turned = tl.load(square + at[:, None] + at[None, :] * T)
        found = tl.dot(turned, slopes, input_precision=PRECISION)
        writes = rows_of(b + head * k_dim, tokens, end, b_stride, rows, k_dim, tl.float32)
        writes *= _to_end(w + head * k_dim, tokens, end, w_stride, rows, k_dim)
        found = tl.dot(writes.to(DTYPE), held, found, input_precision=PRECISION)
        store_rows(grad_u + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)
        logarithms = columns_of(w + head * k_dim, tokens, end, w_stride, rows, k_dim, tl.float32)
        slope *= tl.exp(tl.sum(logarithms, axis=1))[:, None]
        receptances = columns_of(r + head * k_dim, tokens, end, r_stride, rows, k_dim, tl.float32)
        receptances *= tl.exp(tl.cumsum(logarithms, axis=1))
        slope = tl.dot(receptances.to(DTYPE), slopes, slope, input_precision=PRECISION)
        reading = columns_of(reads + head * k_dim, tokens, end, n_heads * k_dim, rows, k_dim, DTYPE)
        slope = tl.dot(reading, found.to(DTYPE), slope, input_precision=PRECISION)
    tl.store(grad_initial + of_sequence + within, slope, mask=inside)


@tuned(_CHUNKS, key=["k_dim", "v_dim"])
@triton.jit
def gradients(
    r, w, k, v, a, b, grad_o, u, grad_u, states, grad_states, squares,
    grad_r, grad_w, grad_k, grad_v, grad_a, grad_b,
    bounds, per_row, seq_len, n_heads, k_dim, v_dim,
    r_stride, w_stride, k_stride, v_stride, a_stride, b_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of all that a slot's tokens have."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = u.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    tokens = first + at
    per_value, per_key, of_head = n_heads * v_dim, n_heads * k_dim, head * k_dim
    receptances = rows_of(r + of_head, tokens, end, r_stride, rows, k_dim, tl.float32)
    keys = rows_of(k + of_head, tokens, end, k_stride, rows, k_dim, tl.float32)
    readers = rows_of(a + of_head, tokens, end, a_stride, rows, k_dim, tl.float32)
    writes = rows_of(b + of_head, tokens, end, b_stride, rows, k_dim, tl.float32)
    left = _to_end(w + of_head, tokens, end, w_stride, rows, k_dim)
    n_rows = tl.where(first < end, k_dim, 0)  # an empty slot has no states
    matrix = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
    square = squares + (slot * n_heads + head.to(tl.int64)) * 4 * T * T + at[:, None] + at[None, :] * T
    of_n_k = tl.zeros([T, T], tl.float32)
    of_n_b = tl.zeros([T, T], tl.float32)
    of_m_k = tl.zeros([T, T], tl.float32)
    of_m_b = tl.zeros([T, T], tl.float32)
    of_r = tl.zeros([T, BLOCK_K], tl.float32)
    of_a = tl.zeros([T, BLOCK_K], tl.float32)
    of_k = tl.zeros([T, BLOCK_K], tl.float32)
    of_b = tl.zeros([T, BLOCK_K], tl.float32)
    of_kept = tl.zeros([BLOCK_K], tl.float32)
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
        read_slopes = rows_of(grad_u + head * v_dim, tokens, end, per_value, columns, v_dim, DTYPE)
        slope = matrix_of(grad_states + matrix, rows, n_rows, v_dim, columns, v_dim, 1, DTYPE)
        solved = tl.dot(tl.load(square + 3 * T * T), read_slopes, input_precision=PRECISION).to(DTYPE)
        found = tl.dot(tl.load(square), slopes, input_precision=PRECISION)
        found = tl.dot(tl.load(square + 2 * T * T), solved, found, input_precision=PRECISION)
        found = tl.dot((keys * left).to(DTYPE), slope, found, input_precision=PRECISION)
        store_rows(grad_v + head * v_dim, found, tokens, end, per_value, columns, v_dim)
        values = columns_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        of_n_k = tl.dot(slopes, values, of_n_k, input_precision=PRECISION)
        of_m_k = tl.dot(solved, values, of_m_k, input_precision=PRECISION)
        values = columns_of(u + head * v_dim, tokens, end, per_value, columns, v_dim, DTYPE)
        of_n_b = tl.dot(slopes, values, of_n_b, input_precision=PRECISION)
        of_m_b = tl.dot(solved, values, of_m_b, input_precision=PRECISION)
        state = matrix_of(states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
        of_r = tl.dot(slopes, state, of_r, input_precision=PRECISION)
        of_a = tl.dot(solved, state, of_a, input_precision=PRECISION)
        slope = matrix_of(grad_states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
        of_kept += tl.sum(state.to(tl.float32) * slope.to(tl.float32), axis=0)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        of_k = tl.dot(values, slope, of_k, input_precision=PRECISION)
        values = rows_of(u + head * v_dim, tokens, end, per_value, columns, v_dim, DTYPE)
        of_b = tl.dot(values, slope, of_b, input_precision=PRECISION)
    of_k *= left
    of_b *= left
    up_to = tl.where(at[None, :] >= at[:, None], 1.0, 0.0)
    beyond = tl.where(at[None, :] > at[:, None], 1.0, 0.0)
    since = tl.where(at[None, :] < at[:, None], 1.0, 0.0)
    of_w = tl.dot(since, keys * of_k + writes * of_b, input_precision=PRECISION)
    pairs_r = tl.zeros([T, BLOCK_K], tl.float32)
    pairs_a = tl.zeros([T, BLOCK_K], tl.float32)
    after = tl.zeros([T, BLOCK_K], tl.float32)
    before = tl.zeros([T, BLOCK_K], tl.float32)
    for step in range(T):
        j = T - 1 - step
        late, early = decays_from(after, before, j, T)
        key = token_of(k + of_head, first + j, end, k_stride, rows, k_dim)[None, :]
        write = token_of(b + of_head, first + j, end, b_stride, rows, k_dim)[None, :]
        n_k, n_b = _column(of_n_k, at == j), _column(of_n_b, at == j)
        m_k, m_b = _column(of_m_k, at == j), _column(of_m_b, at == j)
        from_r = late * (n_k * key + n_b * write)
        from_a = early * (m_k * key + m_b * write)
        pairs_r += from_r
        pairs_a += from_a
        late *= receptances
        early *= readers
        is_j = (at == j)[:, None]
        of_k += tl.where(is_j, tl.sum(n_k * late + m_k * early, axis=0)[None, :], 0.0)
        of_b += tl.where(is_j, tl.sum(n_b * late + m_b * early, axis=0)[None, :], 0.0)
        taken = tl.dot(up_to, from_r * receptances, input_precision=PRECISION)
        taken = tl.dot(beyond, from_a * readers, taken, input_precision=PRECISION)
        of_w += tl.where((at > j)[:, None], taken, 0.0)
        logarithm = token_of(w + of_head, first + j, end, w_stride, rows, k_dim)[None, :]
        after += tl.where((at >= j)[:, None], logarithm, 0.0)
        before += tl.where((at > j)[:, None], logarithm, 0.0)
    of_r *= tl.exp(after)
    of_a *= tl.exp(before)
    of_w = tl.dot(up_to, of_r * receptances, of_w, input_precision=PRECISION)
    of_w = tl.dot(beyond, of_a * readers, of_w, input_precision=PRECISION)
    logarithms = rows_of(w + of_head, tokens, end, w_stride, rows, k_dim, tl.float32)
    of_w += (of_kept * tl.exp(tl.sum(logarithms, axis=0)))[None, :]
    store_rows(grad_r + of_head, of_r + pairs_r, tokens, end, per_key, rows, k_dim)
    store_rows(grad_w + of_head, of_w, tokens, end, per_key, rows, k_dim)
    store_rows(grad_k + of_head, of_k, tokens, end, per_key, rows, k_dim)
    store_rows(grad_a + of_head, of_a + pairs_a, tokens, end, per_key, rows, k_dim)
    store_rows(grad_b + of_head, of_b, tokens, end, per_key, rows, k_dim)


@triton.jit
def _column(matrix, which):
    return tl.sum(tl.where(which[None, :], matrix, 0.0), axis=1)[:, None]


@triton.jit
def _to_end(w, tokens, end, stride, rows, width):
    """Return the decays (tokens, channels) from after each token to the chunk's end."""
    inside = (tokens[:, None] + 1 < end) & (rows[None, :] < width)
    at = w + (tokens[:, None] + 1) * stride + rows[None, :]
    return tl.exp(tl.cumsum(tl.load(at, mask=inside, other=0.0).to(tl.float32), axis=0, reverse=True))
