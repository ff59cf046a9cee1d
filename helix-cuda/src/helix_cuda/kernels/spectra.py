"""Products of spectra of real signals, two of which are transformed as one complex signal.

Of z = a + i b, where Z is the transform of length n, the transforms of a and b at frequency k are
(Z_k + conj Z_{n-k}) / 2 and (Z_k - conj Z_{n-k}) / 2i, so that a program has both frequencies in hand. The
first axis of a grid counts blocks of pairs of signals, the second blocks of frequencies from 0 to n / 2.
"""

import triton
import triton.language as tl


@triton.jit
def multiply(
    z, taps, n, n_pairs, scale, CONJUGATE: tl.constexpr, PAIRS: tl.constexpr, FREQUENCIES: tl.constexpr
):  # fmt: skip
    """Multiply spectra (B, pairs, n) by those of taps (pairs, n), or their conjugates, in place."""
    n_blocks = tl.cdiv(n_pairs, PAIRS)
    row = (tl.program_id(0) // n_blocks).to(tl.int64)
    at, mirror, known = _places(tl.program_id(0) % n_blocks, n, n_pairs, PAIRS, FREQUENCIES)
    own = z + row * n_pairs * n * 2
    a, ai, b, bi = _apart(own, at, mirror, known)
    c, ci, d, di = _apart(taps, at, mirror, known)
    if CONJUGATE:
        ci = -ci
        di = -di
    _join(
        own, at, mirror, known, scale * (a * c - ai * ci), scale * (a * ci + ai * c),
        scale * (b * d - bi * di), scale * (b * di + bi * d),
    )  # fmt: skip


@triton.jit
def correlate(
    z, grads, out, n, n_pairs, n_rows, scale, PAIRS: tl.constexpr, FREQUENCIES: tl.constexpr
):  # fmt: skip
    """Write the sum over the batch of conj(z) times grads, both (B, pairs, n), to out (pairs, n)."""
    at, mirror, known = _places(tl.program_id(0), n, n_pairs, PAIRS, FREQUENCIES)
    first = tl.zeros([PAIRS, FREQUENCIES], tl.float32)
    first_i = tl.zeros([PAIRS, FREQUENCIES], tl.float32)
    second = tl.zeros([PAIRS, FREQUENCIES], tl.float32)
    second_i = tl.zeros([PAIRS, FREQUENCIES], tl.float32)
    for row in range(n_rows):
        step = tl.cast(row, tl.int64) * n_pairs * n * 2
        a, ai, b, bi = _apart(z + step, at, mirror, known)
        c, ci, d, di = _apart(grads + step, at, mirror, known)
        first += a * c + ai * ci
        first_i += a * ci - ai * c
        second += b * d + bi * di
        second_i += b * di - bi * d
    _join(out, at, mirror, known, scale * first, scale * first_i, scale * second, scale * second_i)


@triton.jit
def _places(block, n, n_pairs, PAIRS: tl.constexpr, FREQUENCIES: tl.constexpr):
    """Return where numbers k and n - k of each pair lie, their real parts, and which there are."""
    k = (tl.program_id(1) * FREQUENCIES + tl.arange(0, FREQUENCIES))[None, :]
    pair = (block * PAIRS + tl.arange(0, PAIRS))[:, None]
    first = pair.to(tl.int64) * n
    mirror = tl.where(k == 0, 0, n - k)
    return 2 * (first + k), 2 * (first + mirror), (k <= n // 2) & (pair < n_pairs)


@triton.jit
def _apart(z, at, mirror, known):
    """Return the spectra of both signals, real and imaginary parts."""
    part = tl.arange(0, 2)[None, None, :]
    mask = known[:, :, None]
    re, im = tl.split(tl.load(z + at[:, :, None] + part, mask=mask, other=0.0))
    mirror_re, mirror_im = tl.split(tl.load(z + mirror[:, :, None] + part, mask=mask, other=0.0))
    return (re + mirror_re) / 2, (im - mirror_im) / 2, (im + mirror_im) / 2, (mirror_re - re) / 2


@triton.jit
def _join(z, at, mirror, known, a, ai, b, bi):
    """Write the spectrum of a + i b from those of both."""
    part = tl.arange(0, 2)[None, None, :]
    mask = known[:, :, None]
    tl.store(z + at[:, :, None] + part, tl.join(a - bi, ai + b), mask=mask)
    tl.store(z + mirror[:, :, None] + part, tl.join(a + bi, b - ai), mask=mask)
