"""The selective scan forward: a thread holds all states of a channel and walks a slot of tokens.

A slot is a run of a sequence's tokens. Where rows and channels alone keep a GPU busy, a row is one slot and
`scan` does it all. Otherwise `local_states` runs each slot from a state of zero, `pass_states` carries the
states from slot to slot (a slot's decay is exp(A sum(dt))), and `scan` runs each slot from its true start.

Tensors in a kernel are (N, BLOCK), states by channels, so that a thread's lane is a channel: rows of u load
side by side and the sum over states stays within a thread. The compiler lays tensors out as the memory that
is loaded or stored: A and states before a slot are to be stored (N, D), where more than a step is to be made,
and `zero`, which is 0, is not known to the compiler, or a thread would get four neighbours to load at once.
"""

import triton
import triton.language as tl

from helix_cuda.interpreter import interprets
from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.kernels.selective_steps import channels_of, group_rates, saved_index, step_size
from helix_cuda.tuning import tuned

# The interpreter has no warps.
_WARPS = (1,) if interprets() else (1, 2, 4)
_CONFIGS = [
    triton.Config({"WARPS": warps, "UNROLL": 2 if interprets() else 4}, num_warps=warps) for warps in _WARPS
]


@tuned(_CONFIGS, key=["d_model", "d_state"])
@triton.jit(do_not_specialize=["zero"])
def local_states(
    u, delta, A, B, delta_bias, local, sums,
    bounds, per_row, seq_len, d_model, width, d_state, groups, by_channel, by_state, zero,
    u_stride, delta_stride, B_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
    N: tl.constexpr, LANES: tl.constexpr, WARPS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Write each slot's state after its last token, had it begun from zero, and the sum of its dt."""
    slot = tl.program_id(0)
    group, channel, inside = channels_of(tl.program_id(1), width, LANES * WARPS)
    n = tl.arange(0, N)
    rates = group_rates(A, n, channel, inside, d_state, by_channel, by_state, zero)
    bias = _per_channel(delta_bias, channel, inside, BIAS)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    h = tl.zeros([N, LANES * WARPS], tl.float32)
    total = tl.zeros([LANES * WARPS], tl.float32)
    for start in range(0, (end - first).to(tl.int32), UNROLL):
        for i in tl.static_range(UNROLL):
            token = first + start + i
            here = token < end
            value = tl.load(u + token * u_stride + channel, mask=inside & here, other=0.0).to(tl.float32)
            dt = _step(delta + token * delta_stride, channel, bias, inside & here, SOFTPLUS)
            row = (token * groups + group) * B_stride
            inputs = tl.load(B + row + n, mask=(n < d_state) & here, other=0.0).to(tl.float32)
            h = tl.exp2(rates * dt[None, :]) * h + (dt * value)[None, :] * inputs[:, None]
            total += dt
    at = (slot.to(tl.int64) * d_state + n[:, None]) * d_model + channel[None, :] + zero
    tl.store(local + at, h, mask=(n < d_state)[:, None] & inside[None, :])
    tl.store(sums + slot.to(tl.int64) * d_model + channel, total, mask=inside)


@triton.jit(do_not_specialize=["zero"])
def pass_states(
    local, sums, A, initial, starts, final, firsts, per_row, d_model, d_state, by_channel, by_state, zero,
    PACKED: tl.constexpr, INITIAL: tl.constexpr, BACKWARD: tl.constexpr,
    N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the state that each slot starts from, and a sequence's last one; `BACKWARD` from its end on."""
    sequence = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < d_model
    n = tl.arange(0, N)
    rates = group_rates(A, n, channel, inside, d_state, by_channel, by_state, zero)
    within = (n < d_state)[:, None] & inside[None, :]
    row = sequence.to(tl.int64) * d_model * d_state + channel[None, :] * d_state + n[:, None]
    h = tl.zeros([N, BLOCK], tl.float32)
    if INITIAL:
        begin = sequence.to(tl.int64) * d_model * d_state
        at = channel[None, :] * by_channel + n[:, None] * by_state + zero
        h = tl.load(initial + begin + at, mask=within, other=0.0).to(tl.float32)
    first, end = slots_of(sequence, firsts, per_row, PACKED)
    for i in range(first, end):
        slot = i
        if BACKWARD:
            slot = first + end - 1 - i
        at = (tl.cast(slot, tl.int64) * d_state + n[:, None]) * d_model + channel[None, :] + zero
        tl.store(starts + at, h, mask=within)
        total = tl.load(sums + tl.cast(slot, tl.int64) * d_model + channel, mask=inside, other=0.0)
        h = tl.exp2(rates * total[None, :]) * h + tl.load(local + at, mask=within, other=0.0)
    tl.store(final + row, h, mask=within)


@tuned(_CONFIGS, key=["d_model", "d_state", "GATED"])
@triton.jit(do_not_specialize=["zero"])
def scan(
    u, delta, A, B, C, skip, z, delta_bias, starts, y, final, saved,
    bounds, per_row, seq_len, d_model, width, d_state, groups, by_channel, by_state, zero, n_rows,
    u_stride, delta_stride, B_stride, C_stride, z_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, SOFTPLUS: tl.constexpr, BIAS: tl.constexpr,
    SKIP: tl.constexpr, GATED: tl.constexpr, START: tl.constexpr, WHOLE: tl.constexpr,
    OUTPUTS: tl.constexpr, SAVE: tl.constexpr, INTERVAL: tl.constexpr,
    N: tl.constexpr, LANES: tl.constexpr, WARPS: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """Write y of each slot where `OUTPUTS`, and the states before every `INTERVAL`-th token where `SAVE`.

    `WHOLE`: a slot is a row, `starts` are initial states and `final` is written. Otherwise `starts` is what
    `pass_states` wrote.
    """
    slot = tl.program_id(0)
    group, channel, inside = channels_of(tl.program_id(1), width, LANES * WARPS)
    n = tl.arange(0, N)
    rates = group_rates(A, n, channel, inside, d_state, by_channel, by_state, zero)
    bias = _per_channel(delta_bias, channel, inside, BIAS)
    weight = _per_channel(skip, channel, inside, SKIP)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    within = (n < d_state)[:, None] & inside[None, :]
    state = slot.to(tl.int64) * d_model * d_state
    h = tl.zeros([N, LANES * WARPS], tl.float32)
    if START:
        at = channel[None, :] * by_channel + n[:, None] * by_state + zero
        h = tl.load(starts + state + at, mask=within, other=0.0).to(tl.float32)
    in_saved = group * width * d_state + n[:, None] * width + (channel - group * width)[None, :] + zero
    for start in range(0, (end - first).to(tl.int32), INTERVAL):
        if SAVE:
            index = saved_index(slot, start, per_row, n_rows, SIZE, PACKED, INTERVAL)
            tl.store(saved + index * d_model * d_state + in_saved, h, mask=within & (index >= 0))
        stop = tl.minimum(first + start + INTERVAL, end)
        for step in range(0, (stop - first - start).to(tl.int32), UNROLL):
            for i in tl.static_range(UNROLL):
                token = first + start + step + i
                here = token < end
                loaded = inside & here
                value = tl.load(u + token * u_stride + channel, mask=loaded, other=0.0).to(tl.float32)
                dt = _step(delta + token * delta_stride, channel, bias, loaded, SOFTPLUS)
                row = token * groups + group
                inputs = tl.load(B + row * B_stride + n, mask=(n < d_state) & here, other=0.0).to(tl.float32)
                h = tl.exp2(rates * dt[None, :]) * h + (dt * value)[None, :] * inputs[:, None]
                if OUTPUTS:
                    outputs = tl.load(C + row * C_stride + n, mask=(n < d_state) & here, other=0.0)
                    out = tl.sum(h * outputs.to(tl.float32)[:, None], axis=0)
                    if SKIP:
                        out += weight * value
                    if GATED:
                        gate = tl.load(z + token * z_stride + channel, mask=loaded, other=0.0).to(tl.float32)
                        out *= gate * tl.sigmoid(gate)
                    tl.store(y + token * d_model + channel, out, mask=loaded)
    if WHOLE:
        tl.store(final + state + channel[None, :] * d_state + n[:, None], h, mask=within)


@triton.jit
def _step(row, channel, bias, mask, SOFTPLUS: tl.constexpr):
    """Return dt of a token; 0 where the mask is off, so that a state stays as it is."""
    dt = step_size(tl.load(row + channel, mask=mask, other=0.0).to(tl.float32) + bias, SOFTPLUS)
    return tl.where(mask, dt, 0.0)


@triton.jit
def _per_channel(vector, channel, inside, GIVEN: tl.constexpr):
    value = channel.to(tl.float32) * 0.0
    if GIVEN:
        value = tl.load(vector + channel, mask=inside, other=0.0).to(tl.float32)
    return value
