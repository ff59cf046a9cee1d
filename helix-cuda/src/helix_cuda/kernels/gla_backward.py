"""The gradient of gated linear attention, in the chunks of its forward pass and with the names from there.

That pass is made again up to N and the states S. From the last chunk to the first goes the gradient of the
state, G, and from there all chunks are taken at once: with q scaled,

    dV = N^T dO + (E_Tj k_j) G,    dN = dO V^T,
    dq_i = E_i0 S_0 dO_i + sum over j of dN_ij E_ij k_j,    dk_j = E_Tj G v_j + sum over i of dN_ij E_ij q_i.

What a decay E_ij takes goes to g of each token after j up to i. Within a chunk that is a sum over the pairs
that end at t or later, less those that begin there: a pair of a token with itself is in neither, so that what
cancels is not larger than the gradients of g are.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import columns_of, matrix_of, rows_of, store_rows
from helix_cuda.kernels.rwkv7 import token_of
from helix_cuda.tuning import tuned

_GRADIENTS = [triton.Config({}, num_warps=w, num_stages=1) for w in (8, 4, 2)]
_WALK = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (16, 4, 3), (16, 2, 3))
]


@tuned(_WALK, key=["k_dim", "v_dim"])
@triton.jit
def walk_back(
    q, g, grad_o, grad_final, grad_states, grad_initial, bounds, firsts,
    scale, per_row, seq_len, n_heads, k_dim, v_dim, q_stride, g_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, ENDS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write the gradients of the state after each chunk of a sequence and of the first, a block of values."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    sequence, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = grad_states.dtype.element_ty
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
        of_slot = (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
        tl.store(grad_states + of_slot + within, slope.to(DTYPE), mask=inside)
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
        logarithms = columns_of(g + head * k_dim, tokens, end, g_stride, rows, k_dim, tl.float32)
        slope *= tl.exp(tl.sum(logarithms, axis=1))[:, None]
        queries = columns_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, tl.float32) * scale
        queries *= tl.exp(tl.cumsum(logarithms, axis=1))
        slope = tl.dot(queries.to(DTYPE), slopes, slope, input_precision=PRECISION)
    tl.store(grad_initial + of_sequence + within, slope, mask=inside)


@tuned(_GRADIENTS, key=["k_dim", "v_dim"])
@triton.jit
def gradients(
    q, k, v, g, grad_o, squares, states, grad_states, grad_q, grad_k, grad_v, grad_g, bounds,
    scale, per_row, seq_len, n_heads, k_dim, v_dim, q_stride, k_stride, v_stride, g_stride, o_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write the gradients of all that a slot's tokens have."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = squares.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    at, rows = tl.arange(0, T), tl.arange(0, BLOCK_K)
    tokens = first + at
    per_value, per_key, of_head = n_heads * v_dim, n_heads * k_dim, head * k_dim
    written = rows_of(k + of_head, tokens, end, k_stride, rows, k_dim, tl.float32)
    written = (written * _to_end(g + of_head, tokens, end, g_stride, rows, k_dim)).to(DTYPE)
    n_rows = tl.where(first < end, k_dim, 0)  # an empty slot has no states
    of_slot = slot * n_heads + head.to(tl.int64)
    matrix = of_slot * k_dim * v_dim
    turned = tl.load(squares + of_slot * T * T + at[:, None] + at[None, :] * T)
    of_n = tl.zeros([T, T], tl.float32)
    of_q = tl.zeros([T, BLOCK_K], tl.float32)
    of_k = tl.zeros([T, BLOCK_K], tl.float32)
    of_kept = tl.zeros([BLOCK_K], tl.float32)
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        slopes = rows_of(grad_o + head * v_dim, tokens, end, o_stride, columns, v_dim, DTYPE)
        slope = matrix_of(grad_states + matrix, rows, n_rows, v_dim, columns, v_dim, 1, DTYPE)
        found = tl.dot(turned, slopes, input_precision=PRECISION)
        found = tl.dot(written, slope, found, input_precision=PRECISION)
        store_rows(grad_v + head * v_dim, found, tokens, end, per_value, columns, v_dim)
        values = columns_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        of_n = tl.dot(slopes, values, of_n, input_precision=PRECISION)
        state = matrix_of(states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
        of_q = tl.dot(slopes, state, of_q, input_precision=PRECISION)
        slope = matrix_of(grad_states + matrix, columns, v_dim, 1, rows, n_rows, v_dim, DTYPE)
        of_kept += tl.sum(state.to(tl.float32) * slope.to(tl.float32), axis=0)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, DTYPE)
        of_k = tl.dot(values, slope, of_k, input_precision=PRECISION)
    # Loaded only now, so as not to take registers from the loop above.
    queries = rows_of(q + of_head, tokens, end, q_stride, rows, k_dim, tl.float32) * scale
    keys = rows_of(k + of_head, tokens, end, k_stride, rows, k_dim, tl.float32)
    logarithms = rows_of(g + of_head, tokens, end, g_stride, rows, k_dim, tl.float32)
    of_q *= tl.exp(tl.cumsum(logarithms, axis=0))
    of_k *= _to_end(g + of_head, tokens, end, g_stride, rows, k_dim)
    earlier = tl.where(at[None, :] < at[:, None], 1.0, 0.0)
    of_g = tl.dot(earlier, keys * of_k, input_precision=PRECISION)
    of_g += (of_kept * tl.exp(tl.sum(logarithms, axis=0)))[None, :]
    ending = of_q * queries
    after = tl.zeros([T, BLOCK_K], tl.float32)
    for step in range(T):
        j = T - 1 - step
        slope = tl.sum(tl.where((at == j)[None, :], of_n, 0.0), axis=1)[:, None]
        slope = tl.where((at >= j)[:, None], slope * tl.exp(after), 0.0)
        key = token_of(k + of_head, first + j, end, k_stride, rows, k_dim)[None, :]
        of_q += slope * key
        pairs = slope * queries
        of_k += tl.where((at == j)[:, None], tl.sum(pairs, axis=0)[None, :], 0.0)
        pairs = tl.where((at > j)[:, None], pairs * key, 0.0)
        ending += pairs - tl.where((at == j)[:, None], tl.sum(pairs, axis=0)[None, :], 0.0)
        logarithm = token_of(g + of_head, first + j, end, g_stride, rows, k_dim)[None, :]
        after += tl.where((at >= j)[:, None], logarithm, 0.0)
    of_g += tl.cumsum(ending, axis=0, reverse=True)
    store_rows(grad_q + of_head, of_q * scale, tokens, end, per_key, rows, k_dim)
    store_rows(grad_k + of_head, of_k, tokens, end, per_key, rows, k_dim)
    store_rows(grad_g + of_head, of_g, tokens, end, per_key, rows, k_dim)


@triton.jit
def _to_end(g, tokens, end, stride, rows, width):
    """Return the decays (tokens, channels) from after each token to the chunk's end."""
    inside = (tokens[:, None] + 1 < end) & (rows[None, :] < width)
    at = g + (tokens[:, None] + 1) * stride + rows[None, :]
    return tl.exp(tl.cumsum(tl.load(at, mask=inside, other=0.0).to(tl.float32), axis=0, reverse=True))
