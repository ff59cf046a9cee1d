"""Step sizes of state-space duality: from those given to those used, their running sums of decay, and back.

A step is biased, passed through softplus and limited. The logarithms dt A of the decays are summed from
the start of each chunk on in float64, and kept as two float32 that add up to the sum: a difference of two
sums is then as accurate as the recurrence's own products, also after a strong decay made both large.
What is kept, the size and the two parts of the sum, lies head by head, (H, tokens, 4), so that a chunk of
one head is read in one piece.
"""

import triton
import triton.language as tl

from helix_cuda.kernels.chunks import tokens_of
from helix_cuda.tuning import tuned

_CONFIGS = [triton.Config({}, num_warps=warps) for warps in (4, 2, 8)]


@tuned(_CONFIGS, key=["n_heads", "T"])
@triton.jit
def sums(
    dt, A, bias, kept, bounds, per_row, seq_len, n_tokens, n_heads, dt_stride, rate_stride,
    least, most, softplus: tl.constexpr, limited: tl.constexpr, biased: tl.constexpr, rates: tl.constexpr,
    PACKED: tl.constexpr, T: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Write the step sizes and the sums of one chunk; the grid's second axis counts blocks of heads.

    `rates` says whether A is (tokens, H) and not (H,).
    """
    first, end = tokens_of(tl.program_id(0), bounds, per_row, seq_len, T, PACKED)
    tokens = (first + tl.arange(0, T))[:, None]
    heads = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[None, :]
    inside = (tokens < end) & (heads < n_heads)
    size, _ = _size(
        dt + tokens * dt_stride + heads, bias + heads, inside, heads < n_heads, least, most,
        softplus, limited, biased,
    )  # fmt: skip
    rate = _rate(A, tokens, heads, inside, n_heads, rate_stride, rates)
    total = tl.cumsum(tl.where(inside, size * rate, 0.0).to(tl.float64), axis=0)
    high = total.to(tl.float32)
    at = kept + (heads.to(tl.int64) * n_tokens + tokens) * 4
    tl.store(at, size, mask=inside)
    tl.store(at + 1, high, mask=inside)
    tl.store(at + 2, (total - high.to(tl.float64)).to(tl.float32), mask=inside)


@tuned(_CONFIGS, key=["n_heads", "T"])
@triton.jit
def sums_backward(
    dt, A, bias, grad_sizes, changes, entries, leaves, lefts, kepts, grad_dt, grad_A, grad_biases, bounds,
    per_row, seq_len, n_tokens, n_heads, dt_stride, rate_stride, least, most, softplus: tl.constexpr,
    limited: tl.constexpr, biased: tl.constexpr, rates: tl.constexpr, PACKED: tl.constexpr,
    T: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Write the gradients of dt, of A and of the bias of one chunk, those of (H,) as the chunk's part.

    `grad_sizes` is that of the step sizes where they multiply what is read in the chunk, `leaves` where they
    multiply what a token leaves behind. The gradient of dt A is summed up here: what pairs give (`changes`),
    reads of the first state by the tokens from its own on (`entries`), what all before leave (`lefts`), and
    what of the first state is kept to the last (`kepts`).
    """
    chunk = tl.program_id(0)
    first, end = tokens_of(chunk, bounds, per_row, seq_len, T, PACKED)
    tokens = (first + tl.arange(0, T))[:, None]
    heads = (tl.program_id(1) * HEADS + tl.arange(0, HEADS))[None, :]
    inside = (tokens < end) & (heads < n_heads)
    size, slope = _size(
        dt + tokens * dt_stride + heads, bias + heads, inside, heads < n_heads, least, most,
        softplus, limited, biased,
    )  # fmt: skip
    rate = _rate(A, tokens, heads, inside, n_heads, rate_stride, rates)
    of_head = heads.to(tl.int64) * n_tokens + tokens
    grad_size = tl.load(grad_sizes + of_head, mask=inside, other=0.0)
    grad_size += tl.load(leaves + of_head, mask=inside, other=0.0)
    grad_decay = tl.load(changes + of_head, mask=inside, other=0.0)
    entry = tl.load(entries + of_head, mask=inside, other=0.0)
    left = tl.load(lefts + of_head - 1, mask=inside & (tokens > first), other=0.0)
    grad_decay += tl.cumsum(entry, axis=0, reverse=True) + tl.cumsum(left, axis=0)
    grad_decay += tl.load(kepts + chunk * n_heads + heads, mask=heads < n_heads, other=0.0)
    grad_decay = tl.where(inside, grad_decay, 0.0)
    grad = (grad_size + grad_decay * rate) * slope
    at = tokens * n_heads + heads
    tl.store(grad_dt + at, grad, mask=inside)
    part = chunk.to(tl.int64) * n_heads + tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    is_head = tl.program_id(1) * HEADS + tl.arange(0, HEADS) < n_heads
    if rates:
        tl.store(grad_A + at, grad_decay * size, mask=inside)
    else:
        tl.store(grad_A + part, tl.sum(grad_decay * size, axis=0), mask=is_head)
    if biased:
        tl.store(grad_biases + part, tl.sum(grad, axis=0), mask=is_head)


@triton.jit
def steps_of(kept, at, n_left, T: tl.constexpr, FINE: tl.constexpr):
    """Return a chunk's step sizes, its sums as two numbers that add up to them, and those of the last token.

    The second numbers are 0 unless `FINE`: they lie below what products of 16 bits can tell.
    The three are read together and taken apart by sums: read one by one, each thread would read all that
    it needs of rows and columns, and hold as many addresses.
    """
    column = tl.arange(0, 4)[None, :]
    inside = (at < n_left)[:, None] & (column < 3)
    three = tl.load(kept + at[:, None] * 4 + column, mask=inside, other=0.0)
    size = tl.sum(tl.where(column == 0, three, 0.0), axis=1)
    high = tl.sum(tl.where(column == 1, three, 0.0), axis=1)
    last = kept + (tl.minimum(n_left, T) - 1) * 4
    high_end = tl.load(last + 1)
    if FINE:
        low, low_end = tl.sum(tl.where(column == 2, three, 0.0), axis=1), tl.load(last + 2)
    else:
        low, low_end = tl.zeros([T], tl.float32), 0.0
    return size, high, low, high_end, low_end


@triton.jit
def decays_of(scores, is_read, high, high_from, low, low_from, FINE: tl.constexpr):
    """Return the decays that products of tokens are weighed by, 0 where nothing is read.

    To ask the products, in vain, whether they are numbers ties the decays to the registers that products lie
    in: otherwise the compiler makes them elsewhere, and moves them through shared memory.
    """
    until = tl.where(is_read & (tl.abs(scores) >= 0.0), high, float("-inf"))
    between = until - high_from
    if FINE:
        between += low - low_from
    return tl.exp(between)


@triton.jit
def size_of(dt, bias, least, most, softplus: tl.constexpr, limited: tl.constexpr, biased: tl.constexpr):
    """Return the step size of one token and head."""
    size = tl.load(dt).to(tl.float32)
    if biased:
        size += tl.load(bias).to(tl.float32)
    if softplus:
        size, _ = _softplus(size)
    if limited:
        size = tl.minimum(tl.maximum(size, least), most)
    return size


@triton.jit
def _size(
    dt, bias, inside, is_head, least, most,
    softplus: tl.constexpr, limited: tl.constexpr, biased: tl.constexpr,
):  # fmt: skip
    """Return step sizes and their derivatives by `dt`, both 0 outside."""
    size = tl.load(dt, mask=inside, other=0.0).to(tl.float32)
    slope = tl.full(size.shape, 1.0, tl.float32)
    if biased:
        size += tl.load(bias, mask=is_head, other=0.0).to(tl.float32)
    if softplus:
        size, slope = _softplus(size)
    if limited:
        slope = tl.where((size >= least) & (size <= most), slope, 0.0)
        size = tl.minimum(tl.maximum(size, least), most)
    return tl.where(inside, size, 0.0), tl.where(inside, slope, 0.0)


@triton.jit
def _rate(A, tokens, heads, inside, n_heads, rate_stride, rates: tl.constexpr):
    if rates:
        rate = tl.load(A + tokens * rate_stride + heads, mask=inside, other=0.0)
    else:
        rate = tl.load(A + heads, mask=heads < n_heads, other=0.0)
    return rate.to(tl.float32)


@triton.jit
def _softplus(value):
    """Return log(1 + exp(value)) and its derivative, to float32's accuracy at either end.

    With e = exp(-|value|), log(1 + e) is twice the inverse hyperbolic tangent of e / (2 + e), at most 1/3,
    whose series is cut where its terms fall below float32's.
    """
    e = tl.exp(-tl.abs(value))
    z = e / (2.0 + e)
    s = z * z
    series = 1.0 / 13.0 + s * (1.0 / 15.0)
    for k in tl.static_range(5, -1, -1):
        series = 1.0 / (2 * k + 1) + s * series
    slope = tl.where(value >= 0.0, 1.0, e) / (1.0 + e)
    return tl.maximum(value, 0.0) + 2.0 * z * series, slope
