"""What the selective scan's kernels have in common: channels of a program, rates, step sizes."""

import triton
import triton.language as tl

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def channels_of(block, width, BLOCK: tl.constexpr):
    """Return the group of a block of channels, its channels, and which of them exist.

    A group of `width` channels has a whole number of blocks.
    """
    per_group = tl.cdiv(width, BLOCK)
    local = (block % per_group) * BLOCK + tl.arange(0, BLOCK)
    group = block // per_group
    return group, group * width + local, local < width


@triton.jit
def group_rates(A, n, channel, inside, d_state, by_channel, by_state, zero):
    """Return A (N, channels) for exp2; 0 where there is no state, which then stays 0."""
    mask = (n < d_state)[:, None] & inside[None, :]
    at = channel[None, :] * by_channel + n[:, None] * by_state + zero
    return tl.load(A + at, mask=mask, other=0.0).to(tl.float32) * LOG2_E


@triton.jit
def saved_index(
    slot, start, per_row, n_rows, SIZE: tl.constexpr, PACKED: tl.constexpr, INTERVAL: tl.constexpr
):
    """Return where the states before a slot's token lie among those saved; below 0 where they are not.

    Of rows, those before every `INTERVAL`-th token but the first, (chunk, row); of packed sequences, those
    before every one of a slot, (slot, chunk).
    """
    if PACKED:
        index = slot.to(tl.int64) * (SIZE // INTERVAL) + start // INTERVAL
    else:
        chunk = (slot % per_row).to(tl.int64) * (SIZE // INTERVAL) + start // INTERVAL
        index = tl.where(chunk > 0, (chunk - 1) * n_rows + slot // per_row, -1)
    return index


@triton.jit
def step_size(value, SOFTPLUS: tl.constexpr):
    """Return dt of delta plus bias."""
    if SOFTPLUS:
        e = tl.exp(-tl.abs(value))
        # log(1 + e), by its series where 1 + e would round e away.
        log = tl.where(e < 0.01, e * (1.0 - e * (0.5 - e * (1.0 / 3.0 - e * 0.25))), tl.log(1.0 + e))
        value = tl.maximum(value, 0.0) + log
    return value


@triton.jit
def step_slope(dt, SOFTPLUS: tl.constexpr):
    """Return d dt / d delta from dt: of softplus that is 1 - exp(-dt), by its series where dt is small."""
    slope = dt * 0.0 + 1.0
    if SOFTPLUS:
        series = dt * (1.0 - dt * (0.5 - dt * (1.0 / 6.0 - dt * (1.0 / 24.0))))
        slope = tl.where(dt < 0.05, series, 1.0 - tl.exp(-dt))
    return slope
