// Elementary functions on vectors of floats, without a division where the processor estimates reciprocals.

#pragma once

#include "vector.h"

namespace helix {

constexpr float LOG2_E = 1.44269504088896341f;
constexpr float LN_2 = 0.693147180559945309f;

// 2^t = 2^k 2^(j/n) (1 + f q(f)), where t = k + j/n + f with whole k and j, and 2^(j/n) lies in a register.
// The slope at 0 is ln 2 to the last bit, not that of a minimax polynomial: a decay is often close to 1, where
// an error of 1e-7 of the result is 1e-4 of its distance to 1, and is made again at every step.
namespace powers {

#if defined(__AVX512F__)
constexpr int BITS = 4;  // n = 2^BITS points
#elif defined(__AVX2__)
constexpr int BITS = 3;
#else
constexpr int BITS = 0;
#endif

constexpr int SHIFT = 23 - BITS;  // where an exponent begins in t's whole number of n-ths
constexpr int MANTISSA = 0x007fffff;

// Adding it leaves t's nearest whole number of n-ths in the low bits.
constexpr float ROUND = 12582912.0f / (1 << BITS);

// 2^(j/n), less j << SHIFT, which whoever adds k n + j, shifted, adds as well.
inline vi points(vi index) {
#if defined(__AVX512F__)
    const vi table = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3, 0x3f7837f0, 0x3f76f532,
                      0x3f75fed7, 0x3f75583f, 0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                      0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
    return reinterpret_cast<vi>(
        _mm512_permutexvar_epi32(reinterpret_cast<__m512i>(index), reinterpret_cast<__m512i>(table)));
#elif defined(__AVX2__)
    const vi table = {0x3f800000, 0x3f7b95c2, 0x3f7837f0, 0x3f75fed7,
                      0x3f7504f3, 0x3f75672a, 0x3f7744fd, 0x3f7ac0c7};
    return reinterpret_cast<vi>(
        _mm256_permutevar8x32_epi32(reinterpret_cast<__m256i>(table), reinterpret_cast<__m256i>(index)));
#else
    return 0x3f800000 - (index & 0);
#endif
}

// (2^f - 1) / f for |f| <= 1 / 2n, to 1e-7.
inline vf slope(vf f) {
#if defined(__AVX512F__)
    vf q = splat(5.550540984e-2f);
    q = q * f + 2.402342856e-1f;
#elif defined(__AVX2__)
    vf q = splat(9.619045072e-3f);
    q = q * f + 5.550863594e-2f;
    q = q * f + 2.402265072e-1f;
#else
    vf q = splat(1.547183638e-4f);
    q = q * f + 1.339043723e-3f;
    q = q * f + 9.618022479e-3f;
    q = q * f + 5.550361797e-2f;
    q = q * f + 2.402265072e-1f;
#endif
    return q * f + LN_2;
}

// 2^(shifted's whole number of n-ths), where that is a normal number.
inline vf whole(vf shifted) {
    // Unsigned, since beyond that limit, where callers discard the result, the sum may wrap around.
    vu power = reinterpret_cast<vu>(shifted) << SHIFT;
    return reinterpret_cast<vf>(reinterpret_cast<vu>(points(as_int(shifted))) + power);
}

}  // namespace powers

// 2^(a b) for |a b| < 126, and nothing sensible beyond; to 1e-7, and 2^(a b) - 1 as exactly as a float can hold.
inline vf exp2_product(vf a, vf b) {
    vf shifted = fma(a, b, splat(powers::ROUND));
    vf f = fma(a, b, powers::ROUND - shifted);
    vf point = powers::whole(shifted);
    return point + point * f * powers::slope(f);
}

// 2^(shifted's whole number of n-ths + f), where 0 and infinity may be the result too.
inline vf exp2_clamped(vf shifted, vf f) {
    vi bits = as_int(shifted) << powers::SHIFT;
    vf point = as_float(powers::points(as_int(shifted)) + (bits & powers::MANTISSA));
    return as_float(as_int(point + point * f * powers::slope(f)) + (bits & ~powers::MANTISSA));
}

// 2^x, to 1e-7; 0 below the smallest normal number, infinity above the largest, NaN of NaN.
inline vf exp2(vf x) {
    // Clamped where the result is 0 or infinity anyway, so that the exponent cannot wrap around.
    vf t = min(splat(128.0f), max(splat(-127.0f), x));
    vf shifted = t + powers::ROUND;
    vf y = exp2_clamped(shifted, t - (shifted - powers::ROUND));
    y = select(x > 127.99999f, splat(__builtin_inff()), y);
    y = select(x < -126.0f, vf{}, y);
    return select(x == x, y, x);
}

// e^x, with the limits of `exp2`.
inline vf exp(vf x) {
    constexpr float LOWEST = -87.3365447f, HIGHEST = 88.7228317f;  // of floats whose exponential is normal
    constexpr float LOG2_E_REST = 1.92596299e-8f;                  // what LOG2_E lacks
    vf t = min(splat(HIGHEST), max(splat(LOWEST), x));
    vf shifted = fma(t, splat(LOG2_E), splat(powers::ROUND));
    vf f = fma(t, splat(LOG2_E), powers::ROUND - shifted);
    vf y = exp2_clamped(shifted, fma(t, splat(LOG2_E_REST), f));
    y = select(x > HIGHEST, splat(__builtin_inff()), y);
    y = select(x < LOWEST, vf{}, y);
    return select(x == x, y, x);
}

// 1 / x to one rounding or two; x must be normal and finite for the estimate to hold.
inline vf reciprocal(vf x) {
#if defined(__AVX512F__)
    vf r = reinterpret_cast<vf>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
    return r + r * (1.0f - x * r);
#else
    return 1.0f / x;
#endif
}

// exp(-|x|), but never less than about 1e-38; NaN of NaN.
inline vf exp_of_minus_abs(vf x) { return exp2_product(min(splat(87.0f), abs(x)), splat(-LOG2_E)); }

// 1 / (1 + exp(-x)), given e = exp(-|x|).
inline vf sigmoid(vf x, vf e) {
    vf r = reciprocal(1.0f + e);
    return select(x < 0.0f, e * r, r);
}

inline vf sigmoid(vf x) { return sigmoid(x, exp_of_minus_abs(x)); }

// x / (1 + exp(-x)) of N vectors, step by step for all of them: their chains of instructions run side by side,
// where the processor would not see far enough ahead to find the second behind the first.
template <int N>
inline void silu_each(vf (&x)[N]) {
    vf t[N], shifted[N], f[N], e[N];
    const auto each = [](auto step) {
        for (int i = 0; i < N; i++) step(i);
    };
    // Clamped where the result is x or 0 anyway, so that neither the exponential nor the reciprocal overflows.
    each([&](int i) { x[i] = max(splat(-87.0f), x[i]); });
    each([&](int i) { t[i] = min(splat(87.0f), x[i]); });
    each([&](int i) { shifted[i] = fma(t[i], splat(-LOG2_E), splat(powers::ROUND)); });
    each([&](int i) { f[i] = fma(t[i], splat(-LOG2_E), powers::ROUND - shifted[i]); });
    each([&](int i) { e[i] = powers::whole(shifted[i]); });
    each([&](int i) { e[i] = fma(e[i] * f[i], powers::slope(f[i]), 1.0f + e[i]); });
    each([&](int i) { x[i] *= reciprocal(e[i]); });
}

inline vf silu(vf x) {
    vf alone[1] = {x};
    silu_each(alone);
    return alone[0];
}

// d silu / dx, given sigmoid(x).
inline vf silu_slope(vf x, vf s) { return s * (1.0f + x * (1.0f - s)); }

// log(1 + exp(x)), given e = exp(-|x|): max(x, 0) + log1p(e), to 1e-7.
inline vf softplus(vf x, vf e) {
    // log1p(e) = 2 atanh(s), s = e / (2 + e) <= 1/3; atanh(s) = s + s^3 p(s^2), to 5e-9.
    vf s = e * reciprocal(2.0f + e);
    vf s2 = s * s;
    vf p = splat(1.401222944e-01f);
    p = p * s2 + 1.399957091e-01f;
    p = p * s2 + 2.001084983e-01f;
    p = p * s2 + 3.333320618e-01f;
    vf half = s + s * s2 * p;
    return max(vf{}, x) + (half + half);
}

inline vf softplus(vf x) { return softplus(x, exp_of_minus_abs(x)); }

// The slope of softplus is `sigmoid`.

}  // namespace helix
