// Vectors of W complex numbers, their way to memory, and arithmetic that reads the same for real ones.

#pragma once

#include <algorithm>
#include <type_traits>

#include "interleave.h"

namespace helix {

// As torch.complex64 lies in memory.
struct complex64 {
    float real, imaginary;
};

struct Complex {
    vf real, imaginary;
};

// What a vector of elements is in registers, and one element of what they add up to.
template <typename T>
using Vector = std::conditional_t<std::is_same_v<T, complex64>, Complex, vf>;
template <typename T>
using Wide = std::conditional_t<std::is_same_v<T, complex64>, complex64, float>;

// As for real numbers: the first n, n <= W.
inline Complex load(const complex64* p, int n) {
    const auto* x = reinterpret_cast<const float*>(p);
    float few[2 * W] = {};
    if (n < W) x = std::copy(x, x + 2 * n, few) - 2 * n;
    const Pair pair = deinterleave(load(x), load(x + W));
    return {pair.first, pair.second};
}

inline void store(complex64* p, Complex x, int n) {
    auto* to = reinterpret_cast<float*>(p);
    const Pair pair = interleave({x.real, x.imaginary});
    float few[2 * W];
    float* out = n < W ? few : to;
    store(out, pair.first);
    store(out + W, pair.second);
    if (n < W) std::copy(few, few + 2 * n, to);
}

inline vf conjugate(vf x) { return x; }
inline Complex conjugate(Complex x) { return {x.real, -x.imaginary}; }

inline Complex operator+(Complex a, Complex b) { return {a.real + b.real, a.imaginary + b.imaginary}; }

// a b + c, the products added one by one.
inline vf multiply_add(vf a, vf b, vf c) { return a * b + c; }
inline Complex multiply_add(Complex a, Complex b, Complex c) {
    return {c.real + a.real * b.real - a.imaginary * b.imaginary,
            c.imaginary + a.real * b.imaginary + a.imaginary * b.real};
}

inline vf multiply(vf a, vf b) { return a * b; }
inline Complex multiply(Complex a, Complex b) {
    return {a.real * b.real - a.imaginary * b.imaginary, a.real * b.imaginary + a.imaginary * b.real};
}

}  // namespace helix
