"""One step of RWKV-7's recurrence for each sequence of a batch, as its formula has it."""

import triton
import triton.language as tl

from helix_cuda.tuning import tuned

_CONFIGS = [
    triton.Config({"BLOCK_V": v}, num_warps=w) for v, w in ((16, 4), (32, 4), (8, 4), (64, 8), (64, 4))
]


@tuned(_CONFIGS, key=["k_dim", "v_dim"])
@triton.jit
def step(
    r, w, k, v, a, b, initial_state, o, final_state, n_heads, k_dim, v_dim,
    r_stride, w_stride, k_stride, v_stride, a_stride, b_stride,
    BLOCK_K: tl.constexpr, STARTS: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write a block of values of o and of the next state of a head."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    row, head = (tl.program_id(0) // n_blocks).to(tl.int64), tl.program_id(1)
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    place = (row * n_heads + head) * k_dim * v_dim + rows[:, None] * v_dim + columns[None, :]
    of_value = head * v_dim + columns
    value = tl.load(v + row * v_stride + of_value, mask=columns < v_dim, other=0.0).to(tl.float32)
    state = _of_head(k, row, head, k_stride, rows, k_dim) * value[None, :]
    if STARTS:
        before = tl.load(initial_state + place, mask=inside, other=0.0).to(tl.float32)
        read = tl.sum(_of_head(a, row, head, a_stride, rows, k_dim) * before, axis=0)
        state += tl.exp(_of_head(w, row, head, w_stride, rows, k_dim)) * before
        state += _of_head(b, row, head, b_stride, rows, k_dim) * read[None, :]
    tl.store(final_state + place, state, mask=inside)
    found = tl.sum(_of_head(r, row, head, r_stride, rows, k_dim) * state, axis=0)
    tl.store(o + row * n_heads * v_dim + of_value, found.to(o.dtype.element_ty), mask=columns < v_dim)


@triton.jit
def _of_head(x, row, head, stride, rows, k_dim):
    return tl.load(x + row * stride + head * k_dim + rows, mask=rows < k_dim, other=0.0).to(tl.float32)[
        :, None
    ]
