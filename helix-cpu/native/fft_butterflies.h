// Complex vectors and the small Fourier transforms that longer ones are made of.

#pragma once

#include "always_inline.h"
#include "vector.h"

namespace helix {

struct Complex {
    vf re, im;
};

HELIX_INLINE Complex load_complex(const float* p) { return {load(p), load(p + W)}; }

HELIX_INLINE void store_complex(float* p, Complex x) {
    store(p, x.re);
    store(p + W, x.im);
}

HELIX_INLINE Complex multiply(Complex a, Complex b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
}

HELIX_INLINE Complex multiply_conjugate(Complex a, Complex b) {  // a times the conjugate of b
    return {a.re * b.re + a.im * b.im, a.im * b.re - a.re * b.im};
}

HELIX_INLINE Complex times_i(Complex a) { return {-a.im, a.re}; }

// a, b = a + w b, a - w b, in six multiply-adds.
HELIX_INLINE void split(Complex& a, Complex& b, Complex w) {
    const vf re = a.re + w.re * b.re - w.im * b.im;
    const vf im = a.im + w.re * b.im + w.im * b.re;
    b = {2.0f * a.re - re, 2.0f * a.im - im};
    a = {re, im};
}

// The same with i w for w.
HELIX_INLINE void split_i(Complex& a, Complex& b, Complex w) {
    const vf re = a.re - w.im * b.re - w.re * b.im;
    const vf im = a.im - w.im * b.im + w.re * b.re;
    b = {2.0f * a.re - re, 2.0f * a.im - im};
    a = {re, im};
}

// a, b = a + b, a - b.
HELIX_INLINE void join(Complex& a, Complex& b) {
    const Complex difference{a.re - b.re, a.im - b.im};
    a = {a.re + b.re, a.im + b.im};
    b = difference;
}

// a, b = a - i b, a + i b.
HELIX_INLINE void join_i(Complex& a, Complex& b) {
    const Complex difference{a.re - b.im, a.im + b.re};
    a = {a.re + b.im, a.im - b.re};
    b = difference;
}

constexpr float SQRT_HALF = 0.70710678118654752f;

// a, b = a + c b, a - c b with c = exp(-i pi / 4).
HELIX_INLINE void join_eighth(Complex& a, Complex& b) {
    const vf u = b.re + b.im, v = b.im - b.re;
    b = {a.re - SQRT_HALF * u, a.im - SQRT_HALF * v};
    a = {a.re + SQRT_HALF * u, a.im + SQRT_HALF * v};
}

// a, b = a + c b, a - c b with c = exp(-3 i pi / 4).
HELIX_INLINE void join_three_eighths(Complex& a, Complex& b) {
    const vf u = b.re + b.im, v = b.im - b.re;
    b = {a.re - SQRT_HALF * v, a.im + SQRT_HALF * u};
    a = {a.re + SQRT_HALF * v, a.im - SQRT_HALF * u};
}

// The residues of one polynomial, its coefficients in R parts, modulo R factors. For a modulus z^n - exp(i t)
// w[k] is exp(i t k / R); for R = 8, w[0] is exp(i (t / 8 + pi / 4)).
template <int R>
HELIX_INLINE void reduce(Complex* v, const Complex* w) {
    if constexpr (R == 8) {
        for (int k = 0; k < 4; k++) split(v[k], v[k + 4], w[4]);
        for (int k = 0; k < 2; k++) split(v[k], v[k + 2], w[2]);
        for (int k = 4; k < 6; k++) split_i(v[k], v[k + 2], w[2]);
        split(v[0], v[1], w[1]);
        split_i(v[2], v[3], w[1]);
        split(v[4], v[5], w[0]);
        split_i(v[6], v[7], w[0]);
    } else {
        static_assert(R == 4);
        for (int k = 0; k < 2; k++) split(v[k], v[k + 2], w[2]);
        split(v[0], v[1], w[1]);
        split_i(v[2], v[3], w[1]);
    }
}

// The inverse of `reduce`, times R.
template <int R>
HELIX_INLINE void restore(Complex* v, const Complex* w) {
    for (int k = 0; k < R; k += 2) join(v[k], v[k + 1]);
    for (int k = 0; k < R; k += 4) {
        join(v[k], v[k + 2]);
        join_i(v[k + 1], v[k + 3]);
    }
    if constexpr (R == 8) {
        join(v[0], v[4]);
        join_eighth(v[1], v[5]);
        join_i(v[2], v[6]);
        join_three_eighths(v[3], v[7]);
    }
    for (int k = 1; k < R; k++) v[k] = multiply_conjugate(v[k], w[k]);
}

}  // namespace helix
