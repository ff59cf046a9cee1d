"""The selective scan's gradient: each slot goes back in time through tokens whose states are in registers.

With g the gradient of C h and G_t that of h_t: G_t = g_t C_t + a_{t+1} G_{t+1}, dC_t = sum_d g_t h_t,
dB_t = sum_d x_t G_t, dx_t = B_t G_t, d(dt_t A) = a_t G_t h_{t-1}, where x = dt u and a = exp(dt A).

`local_gradients` gives what each slot adds to the gradient of the state that it starts from,
`selective_scan.pass_states` carries that back from slot to slot, and `gradients` does the rest: from each
saved state it goes forward to the last `TOKENS` tokens of those that are left, through them and back again.
There it calls itself for the next token while it is compiled, so that the states in between are values of an
unrolled program and stay in registers: no memory is written to be read.
"""

import triton
import triton.language as tl

from helix_cuda.interpreter import interprets
from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.kernels.selective_steps import (
    LOG2_E,
    channels_of,
    group_rates,
    saved_index,
    step_size,
    step_slope,
)
from helix_cuda.tuning import tuned

LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)
_WARPS = (1,) if interprets() else (1, 2, 4)


@tuned([triton.Config({"WARPS": warps}, num_warps=warps) for warps in _WARPS], key=["d_model", "d_state"])
@triton.jit(do_not_specialize=["zero"])
def local_gradients(
    grad_y, delta, A, C, z, delta_bias, local, sums,
    bounds, per_row, seq_len, d_model, width, d_state, groups, by_channel, by_state, zero,
    delta_stride, C_stride, z_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
    GATED: tl.constexpr, N: tl.constexpr, LANES: tl.constexpr, WARPS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of each slot's first state, as far as it comes from the slot, and its sum of dt."""
    slot = tl.program_id(0)
    group, channel, inside = channels_of(tl.program_id(1), width, LANES * WARPS)
    n = tl.arange(0, N)
    rates = group_rates(A, n, channel, inside, d_state, by_channel, by_state, zero)
    bias = tl.zeros([LANES * WARPS], tl.float32)
    if BIAS:
        bias = tl.load(delta_bias + channel, mask=inside, other=0.0).to(tl.float32)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    G = tl.zeros([N, LANES * WARPS], tl.float32)
    total = tl.zeros([LANES * WARPS], tl.float32)
    for back in range((end - first).to(tl.int32)):
        token = end - 1 - back
        g = tl.load(grad_y + token * d_model + channel, mask=inside, other=0.0).to(tl.float32)
        if GATED:
            gate = tl.load(z + token * z_stride + channel, mask=inside, other=0.0).to(tl.float32)
            g *= gate * tl.sigmoid(gate)
        raw = tl.load(delta + token * delta_stride + channel, mask=inside, other=0.0).to(tl.float32)
        dt = step_size(raw + bias, SOFTPLUS)
        row = C + (token * groups + group) * C_stride
        outputs = tl.load(row + n, mask=n < d_state, other=0.0).to(tl.float32)
        G = tl.exp2(rates * dt[None, :]) * (G + g[None, :] * outputs[:, None])
        total += dt
    at = (slot.to(tl.int64) * d_state + n[:, None]) * d_model + channel[None, :] + zero
    tl.store(local + at, G, mask=(n < d_state)[:, None] & inside[None, :])
    tl.store(sums + slot.to(tl.int64) * d_model + channel, total, mask=inside)


@triton.jit(do_not_specialize=["zero"])
def gradients(
    grad_y, u, delta, A, B, C, skip, z, delta_bias, initial, saved, ends,
    grad_u, grad_delta, grad_z, grad_A, grad_B, grad_C, grad_skip, grad_bias, grad_initial,
    bounds, per_row, seq_len, d_model, width, d_state, groups, by_channel, by_state, zero,
    n_rows, n_tokens, u_stride, delta_stride, B_stride, C_stride, z_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
    SKIP: tl.constexpr, GATED: tl.constexpr, INITIAL: tl.constexpr, END: tl.constexpr,
    WHOLE: tl.constexpr, INTERVAL: tl.constexpr, TOKENS: tl.constexpr,
    NH: tl.constexpr, DH: tl.constexpr, NL: tl.constexpr, DL: tl.constexpr,
):  # fmt: skip
    """Write the gradients of a slot's tokens, and the slot's or the block of channels' part of the others.

    A tensor is (NH, DH, NL, DL), states by channels by states by channels: Triton lays the last dimensions
    over the lanes of a warp, DH over warps, and leaves NH to a thread's registers.
    """
    slot = tl.program_id(0)
    n = tl.arange(0, NH)[:, None, None, None] * NL + tl.arange(0, NL)[None, None, :, None]
    per_group = tl.cdiv(width, DH * DL)
    group = tl.program_id(1) // per_group
    part = tl.program_id(1) % per_group
    local = tl.arange(0, DH)[None, :, None, None] * DL + tl.arange(0, DL)[None, None, None, :]
    local += part * (DH * DL)
    inside = local < width
    channel = group * width + local
    is_state = n < d_state
    within = is_state & inside
    rates = (
        tl.load(A + channel * by_channel + n * by_state + zero, mask=within, other=0.0).to(tl.float32)
        * LOG2_E
    )
    bias = tl.zeros([1, DH, 1, DL], tl.float32)
    if BIAS:
        bias = tl.load(delta_bias + channel, mask=inside, other=0.0).to(tl.float32)
    weight = tl.zeros([1, DH, 1, DL], tl.float32)
    if SKIP:
        weight = tl.load(skip + channel, mask=inside, other=0.0).to(tl.float32)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    state = slot.to(tl.int64) * d_model * d_state
    at_state = channel * by_channel + n * by_state + zero
    in_row = channel * d_state + n
    G = tl.zeros([NH, DH, NL, DL], tl.float32)
    if END:
        G = tl.load(ends + state + at_state, mask=within, other=0.0).to(tl.float32)
    sum_A = tl.zeros([NH, DH, NL, DL], tl.float32)
    sum_skip = tl.zeros([1, DH, 1, DL], tl.float32)
    sum_bias = tl.zeros([1, DH, 1, DL], tl.float32)
    n_chunks = tl.cdiv((end - first).to(tl.int32), INTERVAL)
    for back in range(n_chunks):
        start = (n_chunks - 1 - back) * INTERVAL
        index = saved_index(slot, start, per_row, n_rows, SIZE, PACKED, INTERVAL)
        in_saved = (index * d_model + group * width) * d_state + n * width + local + zero
        h = tl.load(saved + in_saved, mask=within & (index >= 0), other=0.0)
        if INITIAL and not PACKED:
            row = (slot // per_row).to(tl.int64) * d_model * d_state
            h += tl.load(initial + row + at_state, mask=within & (index < 0), other=0.0).to(tl.float32)
        pieces = tl.cdiv(tl.minimum((end - first).to(tl.int32) - start, INTERVAL), TOKENS)
        for piece in range(pieces):
            begin = first + start + (pieces - 1 - piece) * TOKENS
            before = h
            for ahead in range((pieces - 1 - piece) * TOKENS):
                before, _, _ = _forth(
                    before, first + start + ahead, inside, rates, bias, u, delta, B,
                    group, channel, n, is_state, groups, u_stride, delta_stride, B_stride, SOFTPLUS,
                )  # fmt: skip
            G, sum_A, sum_skip, sum_bias = _there_and_back(
                0, before, G, sum_A, sum_skip, sum_bias, rates, bias, weight,
                grad_y, u, delta, B, C, z, grad_u, grad_delta, grad_z,
                grad_B + part * n_tokens * groups * d_state, grad_C + part * n_tokens * groups * d_state,
                begin, end, group, channel, inside, n, is_state, d_model, d_state, groups,
                u_stride, delta_stride, B_stride, C_stride, z_stride, SOFTPLUS, GATED, TOKENS,
            )  # fmt: skip
    tl.store(grad_A + state + in_row, sum_A, mask=within)
    vector = slot.to(tl.int64) * d_model + channel
    if SKIP:
        tl.store(grad_skip + vector, sum_skip, mask=inside)
    if BIAS:
        tl.store(grad_bias + vector, sum_bias, mask=inside)
    if WHOLE:
        tl.store(grad_initial + state + in_row, G, mask=within)


@triton.jit
def _there_and_back(
    INDEX: tl.constexpr, h, G, sum_A, sum_skip, sum_bias, rates, bias, weight,
    grad_y, u, delta, B, C, z, grad_u, grad_delta, grad_z, grad_B, grad_C,
    start, end, group, channel, inside, n, is_state, d_model, d_state, groups,
    u_stride, delta_stride, B_stride, C_stride, z_stride,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Take the state before a chunk's token `INDEX` to its end, and the gradients from there back to it."""
    token = start + INDEX
    here = token < end
    loaded = inside & here
    row = token * groups + group
    after, decay, dt = _forth(
        h, token, loaded, rates, bias, u, delta, B, group, channel, n, is_state & here,
        groups, u_stride, delta_stride, B_stride, SOFTPLUS,
    )  # fmt: skip
    if INDEX + 1 < TOKENS:
        G, sum_A, sum_skip, sum_bias = _there_and_back(
            INDEX + 1, after, G, sum_A, sum_skip, sum_bias, rates, bias, weight,
            grad_y, u, delta, B, C, z, grad_u, grad_delta, grad_z, grad_B, grad_C,
            start, end, group, channel, inside, n, is_state, d_model, d_state, groups,
            u_stride, delta_stride, B_stride, C_stride, z_stride, SOFTPLUS, GATED, TOKENS,
        )  # fmt: skip
    # What few registers should not hold all the way is read again.
    value = tl.load(u + token * u_stride + channel, mask=loaded, other=0.0).to(tl.float32)
    inputs = tl.load(B + row * B_stride + n, mask=is_state & here, other=0.0).to(tl.float32)
    outputs = tl.load(C + row * C_stride + n, mask=is_state & here, other=0.0).to(tl.float32)
    g = tl.load(grad_y + token * d_model + channel, mask=loaded, other=0.0).to(tl.float32)
    if GATED:
        gate = tl.load(z + token * z_stride + channel, mask=loaded, other=0.0).to(tl.float32)
        s = tl.sigmoid(gate)
        y = _over_states(after * outputs) + weight * value
        slope = g * y * s * (1.0 + gate * (1.0 - s))
        tl.store(grad_z + token * d_model + channel, slope, mask=loaded)
        g *= gate * s
    projections = row * d_state + n
    _store_over_channels(grad_C + projections, g * after, is_state & here)
    G += g * outputs
    x = dt * value
    _store_over_channels(grad_B + projections, x * G, is_state & here)
    grad_x = _over_states(G * inputs)
    G *= decay
    exponent = G * h
    sum_A += exponent * dt
    grad_raw = (_over_states(exponent * rates) * LN_2 + grad_x * value) * step_slope(dt, SOFTPLUS)
    grad_raw = tl.where(loaded, grad_raw, 0.0)
    tl.store(grad_delta + token * d_model + channel, grad_raw, mask=loaded)
    tl.store(grad_u + token * d_model + channel, dt * grad_x + weight * g, mask=loaded)
    return G, sum_A, sum_skip + g * value, sum_bias + grad_raw


@triton.jit
def _forth(
    h, token, loaded, rates, bias, u, delta, B, group, channel, n, is_state,
    groups, u_stride, delta_stride, B_stride, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """Return the state after a token, its decay and its dt; where nothing is loaded, the state as it was."""
    value = tl.load(u + token * u_stride + channel, mask=loaded, other=0.0).to(tl.float32)
    raw = tl.load(delta + token * delta_stride + channel, mask=loaded, other=0.0).to(tl.float32)
    dt = tl.where(loaded, step_size(raw + bias, SOFTPLUS), 0.0)
    row = token * groups + group
    inputs = tl.load(B + row * B_stride + n, mask=is_state, other=0.0).to(tl.float32)
    decay = tl.exp2(rates * dt)
    return decay * h + dt * value * inputs, decay, dt


@triton.jit
def _over_states(tensor):
    """Sum (NH, DH, NL, DL) to (1, DH, 1, DL)."""
    return tl.sum(tl.sum(tensor, axis=0, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def _store_over_channels(pointers, tensor, mask):
    """Store the sum of (NH, DH, NL, DL) over channels."""
    total = tl.sum(tl.sum(tensor, axis=3, keep_dims=True), axis=1, keep_dims=True)
    tl.store(pointers, total, mask=mask)
