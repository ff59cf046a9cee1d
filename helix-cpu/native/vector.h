// Vectors of W floats, W being what one register of the instruction set holds, and their way to memory.
//
// Every kernel is written over these once, in GCC's and Clang's vector extensions, and compiled for each
// instruction set into a library of its own. Tensors hold float or bfloat16; arithmetic is in float.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace helix {

#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

using vf = float __attribute__((vector_size(4 * W)));
using vi = int32_t __attribute__((vector_size(4 * W)));
using vu = uint32_t __attribute__((vector_size(4 * W)));
using vh = uint16_t __attribute__((vector_size(2 * W)));

// As torch.bfloat16 lies in memory: the upper half of a float.
struct bf16 {
    uint16_t bits;
};

inline vf splat(float x) { return x - vf{}; }

inline vi as_int(vf x) { return reinterpret_cast<vi>(x); }
inline vf as_float(vi x) { return reinterpret_cast<vf>(x); }

// Lanes of `a` where the mask (all ones or zeros, as comparisons give it) is set, else of `b`.
inline vf select(vi mask, vf a, vf b) { return mask ? a : b; }

// a b + c: in one rounding where the instruction set has that. Left to itself, the compiler may make a product
// once that two sums need, and so spend an instruction more in place of one less.
inline vf fma(vf a, vf b, vf c) {
#if defined(__AVX512F__)
    return reinterpret_cast<vf>(_mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b),
                                                reinterpret_cast<__m512>(c)));
#elif defined(__AVX2__)
    return reinterpret_cast<vf>(_mm256_fmadd_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b),
                                                reinterpret_cast<__m256>(c)));
#else
    return a * b + c;
#endif
}

inline vf max(vf a, vf b) { return a > b ? a : b; }
inline vf min(vf a, vf b) { return a < b ? a : b; }
inline vf abs(vf x) { return as_float(as_int(x) & 0x7fffffff); }

// Lanes of `a` (numbers below W) and of `b` (from W on).
template <int... LANES>
inline vf shuffle(vf a, vf b) {
#if defined(__clang__)
    return __builtin_shufflevector(a, b, LANES...);
#else
    return __builtin_shuffle(a, b, vi{LANES...});
#endif
}

inline vi lane_numbers() {
    vi lanes{};
    for (int i = 0; i < W; i++) lanes[i] = i;
    return lanes;
}

// All ones in the first n lanes.
inline vi first_lanes(int n) { return lane_numbers() < n; }

// To and from 16 bits: of a vector of AVX-512 in one instruction, where compilers take it in two halves.
inline vu widen_bits(vh x) {
#if defined(__AVX512F__)
    return reinterpret_cast<vu>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(x)));
#else
    return __builtin_convertvector(x, vu);
#endif
}

inline vh narrow_bits(vu x) {
#if defined(__AVX512F__)
    return reinterpret_cast<vh>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(x)));
#else
    return __builtin_convertvector(x, vh);
#endif
}

inline vf widen(vh x) { return reinterpret_cast<vf>(widen_bits(x) << 16); }

// Rounds to the nearest bfloat16, ties to even; a NaN stays one.
inline vh narrow(vf x) {
    vu bits = reinterpret_cast<vu>(x);
    vu rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return narrow_bits((x == x ? rounded : bits | 0x400000) >> 16);
}

inline float widen(bf16 x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline bf16 narrow(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x) return bf16{uint16_t((bits >> 16) | 0x40)};
    return bf16{uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16)};
}

inline float get(const float* p) { return *p; }
inline float get(const bf16* p) { return widen(*p); }
inline void put(float* p, float x) { *p = x; }
inline void put(bf16* p, float x) { *p = narrow(x); }

inline vf load(const float* p) {
    vf x;
    std::memcpy(&x, p, sizeof x);
    return x;
}

inline vf load(const bf16* p) {
    vh x;
    std::memcpy(&x, p, sizeof x);
    return widen(x);
}

inline void store(float* p, vf x) { std::memcpy(p, &x, sizeof x); }

inline void store(bf16* p, vf x) {
    vh half = narrow(x);
    std::memcpy(p, &half, sizeof half);
}

// The first n lanes, n <= W; the others are zero. Memory beyond them is not touched.
template <typename T>
inline vf load(const T* p, int n) {
    if (n >= W) return load(p);
    vf x{};
    for (int i = 0; i < n; i++) x[i] = get(p + i);
    return x;
}

template <typename T>
inline void store(T* p, vf x, int n) {
    if (n >= W) return store(p, x);
    for (int i = 0; i < n; i++) put(p + i, x[i]);
}

inline float sum(vf x) {
    float lanes[W];
    std::memcpy(lanes, &x, sizeof x);
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

}  // namespace helix
