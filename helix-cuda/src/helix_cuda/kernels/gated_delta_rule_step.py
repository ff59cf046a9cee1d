"""One step of the gated delta rule for each sequence of a batch, as its formula has it."""

import triton
import triton.language as tl

from helix_cuda.tuning import tuned

_CONFIGS = [
    triton.Config({"BLOCK_V": v}, num_warps=w) for v, w in ((16, 4), (32, 4), (8, 4), (64, 8), (128, 8))
]


@tuned(_CONFIGS, key=["k_dim", "v_dim"])
@triton.jit
def step(
    q, k, v, g, beta, initial_state, o, final_state, n_heads, k_dim, v_dim, scale,
    q_stride, k_stride, v_stride, g_stride, beta_stride,
    BLOCK_K: tl.constexpr, STARTS: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """Write a block of values of o and of the next state of a head."""
    n_blocks = tl.cdiv(v_dim, BLOCK_V)
    row, head = (tl.program_id(0) // n_blocks).to(tl.int64), tl.program_id(1)
    rows, columns = tl.arange(0, BLOCK_K), tl.program_id(0) % n_blocks * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = (rows[:, None] < k_dim) & (columns[None, :] < v_dim)
    place = (row * n_heads + head) * k_dim * v_dim + rows[:, None] * v_dim + columns[None, :]
    of_key, of_value = head * k_dim + rows, head * v_dim + columns
    query = tl.load(q + row * q_stride + of_key, mask=rows < k_dim, other=0.0).to(tl.float32)
    key = tl.load(k + row * k_stride + of_key, mask=rows < k_dim, other=0.0).to(tl.float32)
    value = tl.load(v + row * v_stride + of_value, mask=columns < v_dim, other=0.0).to(tl.float32)
    strength = tl.load(beta + row * beta_stride + head).to(tl.float32)
    state = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    if STARTS:
        decay = tl.exp(tl.load(g + row * g_stride + head).to(tl.float32))
        state += decay * tl.load(initial_state + place, mask=inside, other=0.0).to(tl.float32)
        value -= tl.sum(key[:, None] * state, axis=0)
    state += key[:, None] * (strength * value)[None, :]
    tl.store(final_state + place, state, mask=inside)
    found = scale * tl.sum(query[:, None] * state, axis=0)
    tl.store(o + row * n_heads * v_dim + of_value, found.to(o.dtype.element_ty), mask=columns < v_dim)
