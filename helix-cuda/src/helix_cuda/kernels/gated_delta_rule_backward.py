"""The gradient of the gated delta rule, in the chunks of its forward pass and with the names from there.

That pass is made again up to the states S and X. From the last chunk to the first goes the gradient of the
state, dS; with it comes dX, and from there all chunks are taken at once. X solves (I + A) X = beta (V -
(D_i0 K) S_0), so that with Y = (I + A)^-T dX

    dV = beta Y,    dA = -Y X^T,    what (D_i0 K) takes is -beta Y S_0^T;

the sums w and u need no gradient of their own.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import (
    between,
    between_transposed,
    columns_of,
    from_start,
    matrix_of,
    per_token,
    rows_of,
    store_rows,
    to_end,
)
from helix_cuda.tuning import tuned

_CHUNKS = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((8, 2), (4, 2), (8, 1), (4, 1))]
_KEYS = [triton.Config({}, num_warps=8, num_stages=s) for s in (1, 2, 3)]
_PASS = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (64, 8, 2), (16, 4, 2))
]


@tuned(_CHUNKS, key=["k_dim", "v_dim"])
@triton.jit
def from_outputs(
    q, k, g, grad_o, grad_x, bounds, per_row, seq_len, n_heads, k_dim, v_dim, scale,
    q_stride, k_stride, g_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write what X takes of its own chunk's outputs, scale (K Q^T D^T) dO; a block of values each."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    slot, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = grad_x.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    tokens = first + tl.arange(0, T)
    columns = tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    scores = tl.zeros([T, T], tl.float32)
    for begin in range(0, k_dim, BLOCK_K):
        rows = begin + tl.arange(0, BLOCK_K)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        queries = columns_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, DTYPE)
        scores = tl.dot(keys, queries, scores, input_precision=PRECISION)
    scores *= between_transposed(g + head, tokens, end, g_stride) * scale
    slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
    found = tl.dot(scores.to(DTYPE), slopes, input_precision=PRECISION)
    store_rows(grad_x + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)


@tuned(_PASS, key=["k_dim", "v_dim"])
@triton.jit
def pass_back(
    q, k, w, g, grad_o, grad_final, own_grad_x, grad_states, grad_x, grad_initial, bounds, firsts,
    per_row, seq_len, n_heads, k_dim, v_dim, scale, q_stride, k_stride, g_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, ENDS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the state after each chunk of a sequence, of X, and of the first state."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    sequence, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = grad_x.dtype.element_ty
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
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
        tokens = first + tl.arange(0, T)
        held = slope.to(DTYPE)
        of_slot = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
        tl.store(grad_states + of_slot + within, held, mask=inside)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        taken = tl.dot(keys, held, input_precision=PRECISION)
        taken *= to_end(g + head, tokens, end, g_stride)[:, None]
        taken += rows_of(own_grad_x + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, tl.float32)
        store_rows(grad_x + head * v_dim, taken, tokens, end, n_heads * v_dim, columns, v_dim)
        slope *= tl.exp(tl.sum(per_token(g + head, tokens, end, g_stride), axis=0))
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, tl.float32)
        slopes *= (from_start(g + head, tokens, end, g_stride) * scale)[:, None]
        queries = columns_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, DTYPE)
        slope = tl.dot(queries, slopes.to(DTYPE), slope, input_precision=PRECISION)
        reads = columns_of(w + head * k_dim, tokens, end, n_heads * k_dim, rows, k_dim, DTYPE)
        slope -= tl.dot(reads, taken.to(DTYPE), input_precision=PRECISION)
    tl.store(grad_initial + of_sequence + within, slope, mask=inside)


@tuned(_CHUNKS, key=["k_dim", "v_dim"])
@triton.jit
def of_values(
    q, k, v, g, beta, grad_o, inverse, x, grad_x, grad_v, y, of_scores, of_system, own_grad_g, own_grad_beta,
    bounds, per_row, seq_len, n_heads, k_dim, v_dim, scale,
    q_stride, k_stride, v_stride, g_stride, beta_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write dV, Y, the gradients of Q K^T and of K K^T, and what g and beta take of the chunk without S_0."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = x.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, per_value = tl.arange(0, T), n_heads * v_dim
    tokens = first + at
    square = (slot * n_heads + head.to(tl.int64)) * T * T
    turned = tl.load(inverse + square + at[:, None] + at[None, :] * T)
    strength = per_token(beta + head, tokens, end, beta_stride)
    of_strength = tl.zeros([T], tl.float32)
    scores_slope = tl.zeros([T, T], tl.float32)
    system_slope = tl.zeros([T, T], tl.float32)
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        slopes = rows_of(grad_x + head * v_dim, tokens, end, per_value, columns, v_dim, DTYPE)
        solved = tl.dot(turned, slopes, input_precision=PRECISION)
        store_rows(y + head * v_dim, solved, tokens, end, per_value, columns, v_dim)
        store_rows(grad_v + head * v_dim, solved * strength[:, None], tokens, end, per_value, columns, v_dim)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, tl.float32)
        of_strength += tl.sum(solved * values, axis=1)
        written = columns_of(x + head * v_dim, tokens, end, per_value, columns, v_dim, DTYPE)
        system_slope = tl.dot(solved.to(DTYPE), written, system_slope, input_precision=PRECISION)
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
        scores_slope = tl.dot(slopes, written, scores_slope, input_precision=PRECISION)
    decays = between(g + head, tokens, end, g_stride)
    scores_slope *= decays * scale
    system_slope = tl.where(at[:, None] > at[None, :], -system_slope * decays, 0.0)
    tl.store(of_scores + square + at[:, None] * T + at[None, :], scores_slope.to(DTYPE))
    scaled = (system_slope * strength[:, None]).to(DTYPE)
    tl.store(of_system + square + at[:, None] * T + at[None, :], scaled)
    scores = tl.zeros([T, T], tl.float32)
    products = tl.zeros([T, T], tl.float32)
    for begin in range(0, k_dim, BLOCK_K):
        rows = begin + tl.arange(0, BLOCK_K)
        turned_keys = columns_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        queries = rows_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, DTYPE)
        scores = tl.dot(queries, turned_keys, scores, input_precision=PRECISION)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        products = tl.dot(keys, turned_keys, products, input_precision=PRECISION)
    products *= system_slope
    of_strength += tl.sum(products, axis=1)
    # What a decay from j to i takes goes to g of each token after j up to i.
    pairs = tl.cumsum(scores * scores_slope + products * strength[:, None], axis=0, reverse=True)
    of_decay = tl.sum(tl.where(at[:, None] > at[None, :], pairs, 0.0), axis=1)
    tl.store(own_grad_g + tokens * n_heads + head, of_decay, mask=tokens < end)
    tl.store(own_grad_beta + tokens * n_heads + head, of_strength, mask=tokens < end)


@tuned(_KEYS, key=["k_dim", "v_dim"])
@triton.jit
def of_keys(
    q, k, g, beta, grad_o, states, grad_states, x, y, of_scores, of_system, own_grad_g, own_grad_beta,
    grad_q, grad_k, grad_g, grad_beta, bounds, per_row, seq_len, n_heads, k_dim, v_dim, scale,
    q_stride, k_stride, g_stride, beta_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write dQ, dK, dg and dbeta of a slot's chunk."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = x.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, per_key = tl.arange(0, T), n_heads * k_dim
    tokens = first + at
    matrix = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
    n_rows = tl.where(first < end, k_dim, 0)  # an empty slot has no states
    square = (slot * n_heads + head.to(tl.int64)) * T * T
    strength = per_token(beta + head, tokens, end, beta_stride)
    entered = from_start(g + head, tokens, end, g_stride)
    left = to_end(g + head, tokens, end, g_stride)
    of_entered = tl.zeros([T], tl.float32)
    of_left = tl.zeros([T], tl.float32)
    of_strength = tl.zeros([T], tl.float32)
    of_kept = tl.zeros([T], tl.float32)
    for begin in range(0, k_dim, BLOCK_K):
        rows = begin + tl.arange(0, BLOCK_K)
        query_slope = tl.zeros([T, BLOCK_K], tl.float32)
        written_slope = tl.zeros([T, BLOCK_K], tl.float32)
        read_slope = tl.zeros([T, BLOCK_K], tl.float32)
        for start in range(0, v_dim, BLOCK_V):
            columns = start + tl.arange(0, BLOCK_V)
            state = matrix_of(states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
            slope = matrix_of(grad_states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
            of_kept += tl.sum(tl.sum(state.to(tl.float32) * slope.to(tl.float32), axis=0), axis=0)
            slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
            query_slope = tl.dot(slopes, state, query_slope, input_precision=PRECISION)
            written = rows_of(x + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, DTYPE)
            written_slope = tl.dot(written, slope, written_slope, input_precision=PRECISION)
            solved = rows_of(y + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, DTYPE)
            read_slope = tl.dot(solved, state, read_slope, input_precision=PRECISION)
        queries = rows_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, DTYPE)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        query_slope *= (scale * entered)[:, None]
        written_slope *= left[:, None]
        read_slope *= -entered[:, None]
        of_entered += tl.sum(query_slope * queries.to(tl.float32), axis=1)
        of_left += tl.sum(written_slope * keys.to(tl.float32), axis=1)
        of_strength += tl.sum(read_slope * keys.to(tl.float32), axis=1)
        scores_slope = tl.load(of_scores + square + at[:, None] * T + at[None, :])
        query_slope = tl.dot(scores_slope, keys, query_slope, input_precision=PRECISION)
        store_rows(grad_q + head * k_dim, query_slope, tokens, end, per_key, rows, k_dim)
        key_slope = written_slope + read_slope * strength[:, None]
        turned = tl.load(of_scores + square + at[:, None] + at[None, :] * T)
        key_slope = tl.dot(turned, queries, key_slope, input_precision=PRECISION)
        system_slope = tl.load(of_system + square + at[:, None] * T + at[None, :])
        system_slope += tl.load(of_system + square + at[:, None] + at[None, :] * T)  # no token has both
        key_slope = tl.dot(system_slope, keys, key_slope, input_precision=PRECISION)
        store_rows(grad_k + head * k_dim, key_slope, tokens, end, per_key, rows, k_dim)
    own = tokens * n_heads + head
    of_beta = of_strength + tl.load(own_grad_beta + own, mask=tokens < end, other=0.0)
    tl.store(grad_beta + own, of_beta, mask=tokens < end)
    of_entered += of_strength * strength
    decayed = tl.cumsum(of_entered, axis=0, reverse=True)
    decayed += tl.sum(tl.where(at[:, None] > at[None, :], of_left[None, :], 0.0), axis=1)
    decayed += of_kept * tl.exp(tl.sum(per_token(g + head, tokens, end, g_stride), axis=0))
    decayed += tl.load(own_grad_g + own, mask=tokens < end, other=0.0)
    tl.store(grad_g + own, decayed, mask=tokens < end)
