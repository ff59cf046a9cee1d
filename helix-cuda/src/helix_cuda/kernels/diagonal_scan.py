"""The diagonal scan h_t = a_t h_{t-1} + b_t: a thread walks a channel through a slot of tokens.

A slot is a run of a sequence's tokens. Where rows and channels alone keep a GPU busy, a row is one slot and
`scan` does it all. Otherwise `local_states` runs each slot from a state of zero, `pass_states` carries the
states from slot to slot (a slot's decay is the product of its factors), and `scan` runs each slot from its
true start: Blelloch 1990, "Prefix Sums and Their Applications", section 1.4, in blocks.

A complex number is two floats side by side in memory and two tensors here; of real ones the second is 0 and
in no formula. A function that calls itself for the token before does so while it is compiled: all its loads
come first, and are under way together.
"""

import triton
import triton.language as tl

from helix_cuda.interpreter import interprets
from helix_cuda.kernels.chunks import slots_of, tokens_of
from helix_cuda.tuning import tuned

_WARPS = (1,) if interprets() else (1, 2, 4)
_TOKENS = 2 if interprets() else 16
_CONFIGS = [triton.Config({"WARPS": warps, "TOKENS": _TOKENS}, num_warps=warps) for warps in _WARPS]


@tuned(_CONFIGS, key=["d_model", "COMPLEX", "CONSTANT"])
@triton.jit
def local_states(
    a, b, local, decays, bounds, per_row, seq_len, d_model, a_stride, b_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr,
    LANES: tl.constexpr, WARPS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write each slot's last state, had it begun from zero, and the product of its factors."""
    slot = tl.program_id(0)
    channel = tl.program_id(1) * LANES * WARPS + tl.arange(0, LANES * WARPS)
    inside = channel < d_model
    a_re, a_im = constant(a, channel, inside, COMPLEX, CONSTANT)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    h_re = tl.zeros([LANES * WARPS], tl.float32)
    h_im = h_re
    p_re = h_re + 1.0
    p_im = h_re
    for start in range(0, (end - first).to(tl.int32), TOKENS):
        h_re, h_im, p_re, p_im = _local(
            TOKENS - 1, h_re, h_im, p_re, p_im, a_re, a_im, a, b, first + start, end,
            channel, inside, a_stride, b_stride, COMPLEX, CONSTANT,
        )  # fmt: skip
    at = slot.to(tl.int64) * d_model + channel
    store(local, at, h_re, h_im, inside, COMPLEX)
    store(decays, at, p_re, p_im, inside, COMPLEX)


@triton.jit
def _local(
    INDEX: tl.constexpr, h_re, h_im, p_re, p_im, a_re, a_im, a, b, start, end,
    channel, inside, a_stride, b_stride, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr,
):  # fmt: skip
    token = start + INDEX
    mask = inside & (token < end)
    f_re, f_im = factor(a, a_re, a_im, token, channel, mask, a_stride, COMPLEX, CONSTANT)
    b_re, b_im = load(b, token * b_stride + channel, mask, COMPLEX)
    if INDEX > 0:
        h_re, h_im, p_re, p_im = _local(
            INDEX - 1, h_re, h_im, p_re, p_im, a_re, a_im, a, b, start, end,
            channel, inside, a_stride, b_stride, COMPLEX, CONSTANT,
        )  # fmt: skip
    h_re, h_im = times(f_re, f_im, h_re, h_im, COMPLEX)
    p_re, p_im = times(f_re, f_im, p_re, p_im, COMPLEX)
    return h_re + b_re, h_im + b_im, p_re, p_im


@triton.jit
def pass_states(
    local, decays, initial, starts, final, firsts, per_row, d_model,
    PACKED: tl.constexpr, COMPLEX: tl.constexpr, INITIAL: tl.constexpr, BACKWARD: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write the state that each slot starts from, and a sequence's last one.

    `BACKWARD` from its end on and by conjugate decays: then these are gradients.
    """
    sequence = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = channel < d_model
    row = sequence.to(tl.int64) * d_model + channel
    h_re = tl.zeros([BLOCK], tl.float32)
    h_im = h_re
    if INITIAL:
        h_re, h_im = load(initial, row, inside, COMPLEX)
    first, end = slots_of(sequence, firsts, per_row, PACKED)
    for i in range(first, end):
        slot = i
        if BACKWARD:
            slot = first + end - 1 - i
        at = tl.cast(slot, tl.int64) * d_model + channel
        store(starts, at, h_re, h_im, inside, COMPLEX)
        p_re, p_im = load(decays, at, inside, COMPLEX)
        if BACKWARD:
            p_im = -p_im
        l_re, l_im = load(local, at, inside, COMPLEX)
        # Growth beyond all bounds leaves nothing as it is.
        nothing = (h_re == 0.0) & (h_im == 0.0)
        h_re, h_im = times(tl.where(nothing, 0.0, p_re), tl.where(nothing, 0.0, p_im), h_re, h_im, COMPLEX)
        h_re += l_re
        h_im += l_im
    store(final, row, h_re, h_im, inside, COMPLEX)


@tuned(_CONFIGS, key=["d_model", "COMPLEX", "CONSTANT"])
@triton.jit
def scan(
    a, b, starts, h, final, saved, bounds, per_row, seq_len, d_model, chunks, a_stride, b_stride,
    SIZE: tl.constexpr, PACKED: tl.constexpr, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr,
    START: tl.constexpr, WHOLE: tl.constexpr, OUTPUTS: tl.constexpr, INTERVAL: tl.constexpr,
    LANES: tl.constexpr, WARPS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """Write h of each slot; without `OUTPUTS` the states before every `INTERVAL`-th token (slot, `chunks`).

    `WHOLE`: a slot is a row, and `final` is written.
    """
    slot = tl.program_id(0)
    channel = tl.program_id(1) * LANES * WARPS + tl.arange(0, LANES * WARPS)
    inside = channel < d_model
    a_re, a_im = constant(a, channel, inside, COMPLEX, CONSTANT)
    first, end = tokens_of(slot, bounds, per_row, seq_len, SIZE, PACKED)
    h_re = tl.zeros([LANES * WARPS], tl.float32)
    h_im = h_re
    row = slot.to(tl.int64) * d_model + channel
    if START:
        h_re, h_im = load(starts, row, inside, COMPLEX)
    for start in range(0, (end - first).to(tl.int32), TOKENS):
        if not OUTPUTS:
            chunk = slot.to(tl.int64) * chunks + start // INTERVAL
            store(saved, chunk * d_model + channel, h_re, h_im, inside & (start % INTERVAL == 0), COMPLEX)
        h_re, h_im = _forth(
            TOKENS - 1, h_re, h_im, a_re, a_im, a, b, h, first + start, end,
            channel, inside, d_model, a_stride, b_stride, COMPLEX, CONSTANT, OUTPUTS,
        )  # fmt: skip
    if WHOLE and OUTPUTS:
        store(final, row, h_re, h_im, inside, COMPLEX)


@triton.jit
def _forth(
    INDEX: tl.constexpr, h_re, h_im, a_re, a_im, a, b, h, start, end,
    channel, inside, d_model, a_stride, b_stride,
    COMPLEX: tl.constexpr, CONSTANT: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    token = start + INDEX
    mask = inside & (token < end)
    f_re, f_im = factor(a, a_re, a_im, token, channel, mask, a_stride, COMPLEX, CONSTANT)
    b_re, b_im = load(b, token * b_stride + channel, mask, COMPLEX)
    if INDEX > 0:
        h_re, h_im = _forth(
            INDEX - 1, h_re, h_im, a_re, a_im, a, b, h, start, end,
            channel, inside, d_model, a_stride, b_stride, COMPLEX, CONSTANT, OUTPUTS,
        )  # fmt: skip
    h_re, h_im = times(f_re, f_im, h_re, h_im, COMPLEX)
    h_re += b_re
    h_im += b_im
    if OUTPUTS:
        store(h, token * d_model + channel, h_re, h_im, mask, COMPLEX)
    return h_re, h_im


@triton.jit
def factor(a, a_re, a_im, token, channel, mask, stride, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr):
    """Return a token's factor; 1 where the mask is off, so that a state stays as it is."""
    if not CONSTANT:
        a_re, a_im = load(a, token * stride + channel, mask, COMPLEX)
    return tl.where(mask, a_re, 1.0), tl.where(mask, a_im, 0.0)


@triton.jit
def constant(a, channel, inside, COMPLEX: tl.constexpr, CONSTANT: tl.constexpr):
    """Return factors (D,), 0 where they are not the same for each token."""
    re = channel.to(tl.float32) * 0.0
    im = re
    if CONSTANT:
        re, im = load(a, channel, inside, COMPLEX)
    return re, im


@triton.jit
def load(pointer, at, mask, COMPLEX: tl.constexpr):
    """Load numbers as two tensors, 0 where the mask is off."""
    if COMPLEX:
        re = tl.load(pointer + 2 * at, mask=mask, other=0.0)
        im = tl.load(pointer + 2 * at + 1, mask=mask, other=0.0)
    else:
        re = tl.load(pointer + at, mask=mask, other=0.0).to(tl.float32)
        im = tl.zeros_like(re)
    return re, im


@triton.jit
def store(pointer, at, re, im, mask, COMPLEX: tl.constexpr):
    """Store numbers given as two tensors."""
    if COMPLEX:
        tl.store(pointer + 2 * at, re, mask=mask)
        tl.store(pointer + 2 * at + 1, im, mask=mask)
    else:
        tl.store(pointer + at, re, mask=mask)


@triton.jit
def times(a_re, a_im, b_re, b_im, COMPLEX: tl.constexpr):
    """Return the product of two numbers."""
    if COMPLEX:
        re = a_re * b_re - a_im * b_im
        im = a_re * b_im + a_im * b_re
    else:
        re = a_re * b_re
        im = b_im
    return re, im
