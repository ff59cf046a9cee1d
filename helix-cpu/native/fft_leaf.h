// The levels of a transform within vectors: W vectors of W coefficients each, transposed, and back.
//
// Transposed, the coefficients of one modulus lie in one lane and every level is again a matter of whole vectors.
// The transposition's second step (quads.h) goes with the first levels, whose vectors c, c + 4, ... it fills.

#pragma once

#include "fft_butterflies.h"
#include "fft_plan.h"
#include "quads.h"

namespace helix {

HELIX_INLINE void transpose_within_quads(const float* from, float* to) {
    for (int a = 0; a < W; a += 4) {
        vf re[4], im[4];
        for (int c = 0; c < 4; c++) {
            const Complex v = load_complex(from + (a + c) * COMPLEX);
            re[c] = v.re;
            im[c] = v.im;
        }
        transpose_within_quads(re);
        transpose_within_quads(im);
        for (int c = 0; c < 4; c++) store_complex(to + (a + c) * COMPLEX, {re[c], im[c]});
    }
}

HELIX_INLINE void transpose_quads(Complex* v) {
    vf re[QUADS], im[QUADS];
    for (int b = 0; b < QUADS; b++) {
        re[b] = v[b].re;
        im[b] = v[b].im;
    }
    transpose_quads(re);
    transpose_quads(im);
    for (int b = 0; b < QUADS; b++) v[b] = {re[b], im[b]};
}

// Two levels of one modulus, w_outer = exp(i t / 2) and w_inner = exp(i t / 4).
HELIX_INLINE void reduce_four(Complex* v, Complex outer, Complex inner) {
    const Complex w[4] = {inner, inner, outer, outer};
    reduce<4>(v, w);
}

HELIX_INLINE void restore_four(Complex* v, Complex outer, Complex inner) {
    const Complex w[4] = {inner, inner, outer, multiply(inner, outer)};
    restore<4>(v, w);
}

// The levels above the last two: none, one or two, as there are quads.
HELIX_INLINE void leaf_upper_forward(float* leaf, const float* twiddles) {
    for (int c = 0; c < 4; c++) {
        Complex v[QUADS];
        for (int b = 0; b < QUADS; b++) v[b] = load_complex(leaf + (4 * b + c) * COMPLEX);
        transpose_quads(v);
        const Complex outer = load_complex(twiddles);
        if constexpr (QUADS == 4) reduce_four(v, outer, load_complex(twiddles + COMPLEX));
        if constexpr (QUADS == 2) split(v[0], v[1], outer);
        for (int b = 0; b < QUADS; b++) store_complex(leaf + (4 * b + c) * COMPLEX, v[b]);
    }
}

HELIX_INLINE void leaf_upper_inverse(float* leaf, const float* twiddles) {
    for (int c = 0; c < 4; c++) {
        Complex v[QUADS];
        for (int b = 0; b < QUADS; b++) v[b] = load_complex(leaf + (4 * b + c) * COMPLEX);
        const Complex outer = load_complex(twiddles);
        if constexpr (QUADS == 4) restore_four(v, outer, load_complex(twiddles + COMPLEX));
        if constexpr (QUADS == 2) {
            join(v[0], v[1]);
            v[1] = multiply_conjugate(v[1], outer);
        }
        transpose_quads(v);
        for (int b = 0; b < QUADS; b++) store_complex(leaf + (4 * b + c) * COMPLEX, v[b]);
    }
}

// The last two levels, with f(i, residues) between the way down and the way up.
template <bool FORWARD, bool INVERSE, typename F>
HELIX_INLINE void leaf_lower(const float* from, float* to, const float* twiddles, const F& f) {
    for (int b = 0; b < QUADS; b++) {
        Complex v[4];
        for (int c = 0; c < 4; c++) v[c] = load_complex(from + (4 * b + c) * COMPLEX);
        Complex outer = load_complex(twiddles + (QUADS / 2 + b / 2) * COMPLEX);
        if (b % 2) outer = times_i(outer);
        const Complex inner = load_complex(twiddles + (QUADS + b) * COMPLEX);
        if constexpr (FORWARD) reduce_four(v, outer, inner);
        for (int c = 0; c < 4; c++) v[c] = f(4 * b + c, v[c]);
        if constexpr (INVERSE) restore_four(v, outer, inner);
        for (int c = 0; c < 4; c++) store_complex(to + (4 * b + c) * COMPLEX, v[c]);
    }
}

HELIX_INLINE void leaf_twiddles(const Plan& plan, int64_t leaf, float* twiddles) {
    const float *numbers = plan.leaf_numbers.data() + leaf * 2 * LEAF_LEVELS, *vectors = plan.leaf_vectors.data();
    for (int level = 0, i = 0; level < LEAF_LEVELS; level++) {
        const Complex number{splat(numbers[2 * level]), splat(numbers[2 * level + 1])};
        for (const int end = 1 << level; i < end; i++)
            store_complex(twiddles + i * COMPLEX, multiply(load_complex(vectors + i * COMPLEX), number));
    }
}

// Leaves what f(number of the vector in the plan, residues) gives, or its inverse transform.
template <bool INVERSE, typename F>
inline void run_leaf(const Plan& plan, float* data, int64_t first_vector, const F& f) {
    alignas(64) float leaf[W * COMPLEX], twiddles[W / 2 * COMPLEX];
    leaf_twiddles(plan, first_vector / W, twiddles);
    transpose_within_quads(data, leaf);
    leaf_upper_forward(leaf, twiddles);
    leaf_lower<true, INVERSE>(leaf, INVERSE ? leaf : data, twiddles,
                              [&](int i, Complex v) { return f(first_vector + i, v); });
    if constexpr (!INVERSE) return;
    leaf_upper_inverse(leaf, twiddles);
    transpose_within_quads(leaf, data);
}

// From residues back to coefficients.
inline void restore_leaf(const Plan& plan, float* data, int64_t first_vector) {
    alignas(64) float leaf[W * COMPLEX], twiddles[W / 2 * COMPLEX];
    leaf_twiddles(plan, first_vector / W, twiddles);
    leaf_lower<false, true>(data, leaf, twiddles, [](int, Complex v) { return v; });
    leaf_upper_inverse(leaf, twiddles);
    transpose_within_quads(leaf, data);
}

}  // namespace helix
