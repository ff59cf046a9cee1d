// Elementary functions on vectors of floats, without a division or a table.

#pragma once

#include "vector.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace helix {

constexpr float LOG2_E = 1.44269504088896341f;

// 2^x, to about 2e-7 relative; 0 below the smallest normal number, infinity above the largest, NaN of NaN.
inline vf exp2(vf x) {
    // Clamped where the result is 0 or infinity anyway, so that the exponent below cannot wrap around.
    vf clamped = min(max(x, splat(-127.0f)), splat(128.0f));
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
    vf shifted = clamped + ROUND;
    vf fraction = clamped - (shifted - ROUND);
    // Minimax polynomial of 2^f on [-1/2, 1/2], relative error 7e-08 before rounding.
    vf p = splat(1.32764715e-03f);
    p = p * fraction + 9.67554133e-03f;
    p = p * fraction + 5.55071327e-02f;
    p = p * fraction + 2.40221197e-01f;
    p = p * fraction + 6.93146967e-01f;
    p = p * fraction + 1.00000007e+00f;
    vi exponent = as_int(shifted) - 0x4b400000;
    vf scaled = as_float(as_int(p) + (exponent << 23));
    scaled = select(x > 127.9999f, splat(__builtin_inff()), scaled);
    scaled = select(x < -126.0f, vf{}, scaled);
    return select(x == x, scaled, x);
}

inline vf exp(vf x) { return exp2(x * LOG2_E); }

// 1 / x to one rounding or two; x must be normal and finite for the estimate to hold.
inline vf reciprocal(vf x) {
#if defined(__AVX512F__)
    vf r = reinterpret_cast<vf>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
    return r + r * (1.0f - x * r);
#else
    return 1.0f / x;
#endif
}

inline vf sigmoid(vf x) {
    // 1 / (1 + 2^t): beyond t = 126 the result is 0 to the last float, and the sum stays finite.
    return reciprocal(1.0f + exp2(min(-x * LOG2_E, splat(126.0f))));
}

inline vf silu(vf x) { return x * sigmoid(x); }

// d silu / dx, given sigmoid(x).
inline vf silu_slope(vf x, vf s) { return s * (1.0f + x * (1.0f - s)); }

// log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), to a few 1e-7 relative.
inline vf softplus(vf x) {
    vf e = exp2(-abs(x) * LOG2_E);
    // log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3.
    vf s = e * reciprocal(2.0f + e);
    vf s2 = s * s;
    vf p = splat(1.0f / 13);
    p = p * s2 + 1.0f / 11;
    p = p * s2 + 1.0f / 9;
    p = p * s2 + 1.0f / 7;
    p = p * s2 + 1.0f / 5;
    p = p * s2 + 1.0f / 3;
    vf log1p = 2.0f * (s + s * s2 * p);
    return select(x == x, max(x, vf{}) + log1p, x);
}

// The slope of softplus is `sigmoid`.

}  // namespace helix
