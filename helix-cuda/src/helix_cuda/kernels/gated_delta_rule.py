"""The gated delta rule in chunks: the WY representation, with matrix products for all that is in a chunk.

Yang et al. 2024, https://arxiv.org/abs/2406.06484, section 3, with the decays of
https://arxiv.org/abs/2412.06464, section 3.3. With D_ij the decay from after token j to token i of a chunk
and S_0 the state before it, what token i adds to its key's line of the state, x_i, solves

    (I + A) X = beta (V - (D_i0 K) S_0),    A_ij = beta_i D_ij k_i k_j^T for j < i.

`prepare` inverts I + A for all chunks at once, `pass_states` goes from chunk to chunk with two products for
each, and `outputs` again takes all chunks at once.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.delta_tiles import (
    between,
    columns_of,
    from_start,
    inverse_of,
    matrix_of,
    per_token,
    rows_of,
    store_rows,
    to_end,
)
from helix_cuda.tuning import tuned

_PREPARE = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((4, 2), (8, 2), (4, 3))]
_PASS = [
    triton.Config({"BLOCK_V": v}, num_warps=w, num_stages=s)
    for v, w, s in ((16, 4, 1), (32, 4, 2), (64, 4, 2), (64, 8, 2), (16, 4, 3))
]
_OUTPUTS = [triton.Config({}, num_warps=w, num_stages=s) for w, s in ((4, 2), (8, 2), (4, 3))]


@tuned(_PREPARE, key=["k_dim", "v_dim"])
@triton.jit
def prepare(
    k, v, g, beta, u, w, inverse, bounds, per_row, seq_len, n_heads, k_dim, v_dim,
    k_stride, v_stride, g_stride, beta_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Write u = (I + A)^-1 beta V and w = (I + A)^-1 beta D_i0 K of a chunk, and to `KEEP` the inverse."""
    slot, head = tl.program_id(0), tl.program_id(1)
    DTYPE: tl.constexpr = u.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    tokens = first + tl.arange(0, T)
    products = tl.zeros([T, T], tl.float32)
    for begin in range(0, k_dim, BLOCK_K):
        columns = begin + tl.arange(0, BLOCK_K)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, columns, k_dim, DTYPE)
        transposed = columns_of(k + head * k_dim, tokens, end, k_stride, columns, k_dim, DTYPE)
        products = tl.dot(keys, transposed, products, input_precision=PRECISION)
    strength = per_token(beta + head, tokens, end, beta_stride)
    system = products * between(g + head, tokens, end, g_stride) * strength[:, None]
    solved = inverse_of(system, T, PRECISION).to(DTYPE)
    if KEEP:
        at = tl.arange(0, T)
        place = inverse + (slot * n_heads + head.to(tl.int64)) * T * T
        tl.store(place + at[:, None] * T + at[None, :], solved)
    for begin in range(0, v_dim, BLOCK_V):
        columns = begin + tl.arange(0, BLOCK_V)
        values = rows_of(v + head * v_dim, tokens, end, v_stride, columns, v_dim, tl.float32)
        found = tl.dot(solved, (values * strength[:, None]).to(DTYPE), input_precision=PRECISION)
        store_rows(u + head * v_dim, found, tokens, end, n_heads * v_dim, columns, v_dim)
    strength *= from_start(g + head, tokens, end, g_stride)
    for begin in range(0, k_dim, BLOCK_K):
        columns = begin + tl.arange(0, BLOCK_K)
        keys = rows_of(k + head * k_dim, tokens, end, k_stride, columns, k_dim, tl.float32)
        found = tl.dot(solved, (keys * strength[:, None]).to(DTYPE), input_precision=PRECISION)
        store_rows(w + head * k_dim, found, tokens, end, n_heads * k_dim, columns, k_dim)


@tuned(_PASS, key=["k_dim", "v_dim"])
@triton.jit
def pass_states(
    k, u, w, g, initial_state, states, x, final_state, bounds, firsts,
    per_row, seq_len, n_heads, k_dim, v_dim, k_stride, g_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, PACKED: tl.constexpr, STARTS: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write the state before each chunk of a sequence, its X, and the last state; a block of values each."""
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
        reads = rows_of(w + head * k_dim, tokens, end, n_heads * k_dim, rows, k_dim, DTYPE)
        written = rows_of(u + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, tl.float32)
        written -= tl.dot(reads, held, input_precision=PRECISION)
        store_rows(x + head * v_dim, written, tokens, end, n_heads * v_dim, columns, v_dim)
        left = to_end(g + head, tokens, end, g_stride)
        kept = tl.exp(tl.sum(per_token(g + head, tokens, end, g_stride), axis=0))
        keys = columns_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        state = tl.dot(keys, (written * left[:, None]).to(DTYPE), state * kept, input_precision=PRECISION)
    tl.store(final_state + of_sequence + within, state, mask=inside)


@tuned(_OUTPUTS, key=["k_dim", "v_dim"])
@triton.jit
def outputs(
    q, k, g, states, x, o, bounds, per_row, seq_len, n_heads, k_dim, v_dim, scale,
    q_stride, k_stride, g_stride,
    T: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_V: tl.constexpr, PACKED: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Write o = scale (D_i0 Q S_0 + (Q K^T D) X) of a slot's chunk; a block of values each."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    slot, head = tl.program_id(0) // n_blocks, tl.program_id(1)
    DTYPE: tl.constexpr = x.dtype.element_ty
    first, end = tokens_of(slot, bounds, per_row, seq_len, T, PACKED)
    tokens = first + tl.arange(0, T)
    columns = tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    state = states + (slot * n_heads + head.to(tl.int64)) * k_dim * v_dim
    n_rows = tl.where(first < end, k_dim, 0)  # an empty slot has no state
    scores = tl.zeros([T, T], tl.float32)
    found = tl.zeros([T, BLOCK_V], tl.float32)
    for begin in range(0, k_dim, BLOCK_K):
        rows = begin + tl.arange(0, BLOCK_K)
        queries = rows_of(q + head * k_dim, tokens, end, q_stride, rows, k_dim, DTYPE)
        keys = columns_of(k + head * k_dim, tokens, end, k_stride, rows, k_dim, DTYPE)
        held = matrix_of(state, rows, n_rows, v_dim, columns, v_dim, 1, DTYPE)
        scores = tl.dot(queries, keys, scores, input_precision=PRECISION)
        found = tl.dot(queries, held, found, input_precision=PRECISION)
    scores *= between(g + head, tokens, end, g_stride)
    written = rows_of(x + head * v_dim, tokens, end, n_heads * v_dim, columns, v_dim, DTYPE)
    found *= from_start(g + head, tokens, end, g_stride)[:, None]
    found = tl.dot(scores.to(DTYPE), written, found, input_precision=PRECISION)
    store_rows(o + head * v_dim, found * scale, tokens, end, n_heads * v_dim, columns, v_dim)
