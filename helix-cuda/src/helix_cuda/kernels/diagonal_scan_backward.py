"""The diagonal scan's gradient: G_t = g_t + conj(a_{t+1}) G_{t+1}, db_t = G_t, da_t = G_t conj(h_{t-1}).

g is the gradient of h and G that of the state. `local_gradients` gives what each slot adds to the gradient of
the state that it starts from, `diagonal_scan.pass_states` carries that back from slot to slot, and
`gradients` does the rest: from each saved state forward through `INTERVAL` tokens and back again. It calls
itself for the next token while it is compiled, so that the states in between stay in registers.
"""

import triton
import triton.language as tl

from helix_cuda.interpreter import interprets
from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.kernels.diagonal_scan import constant, factor, load, store, times
from helix_cuda.tuning import tuned

_WARPS = (1,) if interprets() else (1, 2, 4)
_CONFIGS = [triton.Config({"WARPS": warps}, num_warps=warps) for warps in _WARPS]


@tuned(_CONFIGS, key=["d_model", "COMPLEX", "CONSTANT"])
@triton.jit
def local_gradients(
    a, grad_h, local, bounds, per_row, seq_len, d_model, a_stride, grad_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr,
    TOKENS: tl.constexpr, LANES: tl.constexpr, WARPS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of each slot's first state, as far as it comes from the slot."""
    slot = tl.program_id(0)
    channel = tl.program_id(1) * LANES * WARPS + tl.arange(0, LANES * WARPS)
    inside = channel < d_model
    a_re, a_im = constant(a, channel, inside, COMPLEX, CONSTANT)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    G_re = tl.zeros([LANES * WARPS], tl.float32)
    G_im = G_re
    n_pieces = tl.cdiv((end - first).to(tl.int32), TOKENS)
    for back in range(n_pieces):
        G_re, G_im = _local(
            0, G_re, G_im, a_re, a_im, a, grad_h, first + (n_pieces - 1 - back) * TOKENS, end,
            channel, inside, a_stride, grad_stride, COMPLEX, CONSTANT, TOKENS,
        )  # fmt: skip
    store(local, slot.to(tl.int64) * d_model + channel, G_re, G_im, inside, COMPLEX)


@triton.jit
def _local(
    INDEX: tl.constexpr, G_re, G_im, a_re, a_im, a, grad_h, start, end,
    channel, inside, a_stride, grad_stride,
    COMPLEX: tl.constexpr, CONSTANT: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    token = start + INDEX
    mask = inside & (token < end)
    f_re, f_im = factor(a, a_re, a_im, token, channel, mask, a_stride, COMPLEX, CONSTANT)
    g_re, g_im = load(grad_h, token * grad_stride + channel, mask, COMPLEX)
    if INDEX + 1 < TOKENS:
        G_re, G_im = _local(
            INDEX + 1, G_re, G_im, a_re, a_im, a, grad_h, start, end,
            channel, inside, a_stride, grad_stride, COMPLEX, CONSTANT, TOKENS,
        )  # fmt: skip
    return times(f_re, -f_im, G_re + g_re, G_im + g_im, COMPLEX)


@tuned(_CONFIGS, key=["d_model", "COMPLEX", "CONSTANT"])
@triton.jit
def gradients(
    a, b, grad_h, ends, saved, grad_a, grad_b, grad_initial,
    bounds, per_row, seq_len, d_model, chunks, a_stride, b_stride, grad_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr,
    END: tl.constexpr, WHOLE: tl.constexpr, INTERVAL: tl.constexpr, TOKENS: tl.constexpr,
    LANES: tl.constexpr, WARPS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a slot's tokens; of factors (D,) the slot's part (slot, D)."""
    slot = tl.program_id(0)
    channel = tl.program_id(1) * LANES * WARPS + tl.arange(0, LANES * WARPS)
    inside = channel < d_model
    a_re, a_im = constant(a, channel, inside, COMPLEX, CONSTANT)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    row = slot.to(tl.int64) * d_model + channel
    G_re = tl.zeros([LANES * WARPS], tl.float32)
    G_im = G_re
    sum_re = G_re
    sum_im = G_re
    if END:
        G_re, G_im = load(ends, row, inside, COMPLEX)
    n_chunks = tl.cdiv((end - first).to(tl.int32), INTERVAL)
    for back in range(n_chunks):
        chunk = n_chunks - 1 - back
        h_re, h_im = load(saved, (slot.to(tl.int64) * chunks + chunk) * d_model + channel, inside, COMPLEX)
        G_re, G_im, sum_re, sum_im = _there_and_back(
            0, h_re, h_im, G_re, G_im, sum_re, sum_im, a_re, a_im, a, b, grad_h, grad_a, grad_b,
            first + chunk * INTERVAL, end, channel, inside, d_model, a_stride, b_stride, grad_stride,
            COMPLEX, CONSTANT, TOKENS,
        )  # fmt: skip
    if CONSTANT:
        store(grad_a, row, sum_re, sum_im, inside, COMPLEX)
    if WHOLE:
        store(grad_initial, row, G_re, G_im, inside, COMPLEX)


@triton.jit
def _there_and_back(
    INDEX: tl.constexpr, h_re, h_im, G_re, G_im, sum_re, sum_im, a_re, a_im, a, b, grad_h, grad_a, grad_b,
    start, end, channel, inside, d_model, a_stride, b_stride, grad_stride,
    COMPLEX: tl.constexpr, CONSTANT: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Take the state before a chunk's token `INDEX` to its end, and the gradients from there back to it."""
    token = start + INDEX
    mask = inside & (token < end)
    f_re, f_im = factor(a, a_re, a_im, token, channel, mask, a_stride, COMPLEX, CONSTANT)
    g_re, g_im = load(grad_h, token * grad_stride + channel, mask, COMPLEX)
    if INDEX + 1 < TOKENS:
        b_re, b_im = load(b, token * b_stride + channel, mask, COMPLEX)
        after_re, after_im = times(f_re, f_im, h_re, h_im, COMPLEX)
        G_re, G_im, sum_re, sum_im = _there_and_back(
            INDEX + 1, after_re + b_re, after_im + b_im, G_re, G_im, sum_re, sum_im, a_re, a_im,
            a, b, grad_h, grad_a, grad_b, start, end, channel, inside, d_model,
            a_stride, b_stride, grad_stride, COMPLEX, CONSTANT, TOKENS,
        )  # fmt: skip
    G_re += g_re
    G_im += g_im
    slope_re, slope_im = times(h_re, -h_im, G_re, G_im, COMPLEX)
    store(grad_b, token * d_model + channel, G_re, G_im, mask, COMPLEX)
    if CONSTANT:
        sum_re += tl.where(mask, slope_re, 0.0)
        sum_im += tl.where(mask, slope_im, 0.0)
    else:
        store(grad_a, token * d_model + channel, slope_re, slope_im, mask, COMPLEX)
    G_re, G_im = times(f_re, -f_im, G_re, G_im, COMPLEX)
    return G_re, G_im, sum_re, sum_im
