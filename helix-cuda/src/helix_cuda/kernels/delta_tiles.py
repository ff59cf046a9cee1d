"""What the kernels of delta rules share: tiles of tokens, decays between them, and a triangular inverse.

A tile's rows are tokens, counted over the whole batch; `x` points to what a head has of the first token.
"""

import triton
import triton.language as tl


@triton.jit
def rows_of(x, tokens, end, stride, columns, width, DTYPE: tl.constexpr):
    """Return the tile (tokens, columns) in `DTYPE`; zero from token `end` and column `width` on."""
    inside = (tokens[:, None] < end) & (columns[None, :] < width)
    return tl.load(x + tokens[:, None] * stride + columns[None, :], mask=inside, other=0.0).to(DTYPE)


@triton.jit
def columns_of(x, tokens, end, stride, columns, width, DTYPE: tl.constexpr):
    """Return that tile transposed: (columns, tokens)."""
    inside = (tokens[None, :] < end) & (columns[:, None] < width)
    return tl.load(x + tokens[None, :] * stride + columns[:, None], mask=inside, other=0.0).to(DTYPE)


@triton.jit
def store_rows(x, value, tokens, end, stride, columns, width):
    """Write a tile (tokens, columns), but for what lies beyond `end` and `width`."""
    inside = (tokens[:, None] < end) & (columns[None, :] < width)
    tl.store(x + tokens[:, None] * stride + columns[None, :], value.to(x.dtype.element_ty), mask=inside)


@triton.jit
def matrix_of(x, rows, n_rows, row_stride, columns, n_columns, column_stride, DTYPE: tl.constexpr):
    """Return a block of a matrix in `DTYPE`, zero beyond it; the strides say whether it is transposed."""
    inside = (rows[:, None] < n_rows) & (columns[None, :] < n_columns)
    at = x + rows[:, None] * row_stride + columns[None, :] * column_stride
    return tl.load(at, mask=inside, other=0.0).to(DTYPE)


@triton.jit
def per_token(x, tokens, end, stride):
    """Return one number of each token in float32, zero from token `end` on."""
    return tl.load(x + tokens * stride, mask=tokens < end, other=0.0).to(tl.float32)


@triton.jit
def from_start(g, tokens, end, stride):
    """Return the decay from before the chunk to after each token."""
    return tl.exp(tl.cumsum(per_token(g, tokens, end, stride), axis=0))


@triton.jit
def to_end(g, tokens, end, stride):
    """Return the decay from after each token to the chunk's end."""
    after = tl.load(g + (tokens + 1) * stride, mask=tokens + 1 < end, other=0.0).to(tl.float32)
    return tl.exp(tl.cumsum(after, axis=0, reverse=True))


@triton.jit
def between(g, tokens, end, stride):
    """Return the decays (i, j) from after token j to token i >= j of the chunk, and zeros above.

    Each is the exponential of its own sum: a difference of two long sums would lose digits behind a strong
    decay, and be undefined behind an infinite one.
    """
    at = tl.arange(0, tokens.shape[0])
    logarithms = per_token(g, tokens, end, stride)[:, None]
    sums = tl.cumsum(tl.where(at[:, None] > at[None, :], logarithms, 0.0), axis=0)
    return tl.where(at[:, None] >= at[None, :], tl.exp(sums), 0.0)


@triton.jit
def between_transposed(g, tokens, end, stride):
    """Return those decays transposed: (j, i)."""
    at = tl.arange(0, tokens.shape[0])
    logarithms = per_token(g, tokens, end, stride)[None, :]
    sums = tl.cumsum(tl.where(at[None, :] > at[:, None], logarithms, 0.0), axis=1)
    return tl.where(at[None, :] >= at[:, None], tl.exp(sums), 0.0)


@triton.jit
def inverse_of(system, T: tl.constexpr, PRECISION: tl.constexpr):
    """Return (I + A)^-1 of the strictly lower part A of `system`.

    The inverse of a block in halves [[P, 0], [R, Q]] is [[P', 0], [-Q' R P', Q']] with P' and Q' theirs: from
    blocks of one row to all of it, blocks of one size are inverted together, with two products of matrices.
    """
    at = tl.arange(0, T)
    rows, columns = at[:, None], at[None, :]
    inverse = tl.where(rows == columns, 1.0, 0.0) - _between_halves(system, rows, columns, 0)
    for level in tl.static_range(1, 10):
        if 2**level < T:
            across = tl.dot(_between_halves(system, rows, columns, level), inverse, input_precision=PRECISION)
            inverse -= tl.dot(inverse, across, input_precision=PRECISION)
    return inverse


@triton.jit
def _between_halves(system, rows, columns, level):
    """Return what the second 2^level rows of each block of twice as many take of the first, else zeros."""
    same_block = (rows >> (level + 1)) == (columns >> (level + 1))
    return tl.where(same_block & ((rows >> level) > (columns >> level)), system, 0.0)
