// Twiddle factors of a Fourier transform of one length, and the order of its passes.
//
// A real signal x of 2n samples is here the complex polynomial of coefficients x_t + i x_{t+n}, modulo z^n - i: a
// factor of z^{2n} + 1, whose other factor is its conjugate. So n complex coefficients give a product that wraps
// around only after 2n samples (Crandall and Fagin 1994, "Discrete weighted transforms and large-integer
// arithmetic": right-angle convolution). The transform splits a modulus z^{2m} - exp(i t) into z^m - exp(i t / 2)
// and z^m + exp(i t / 2), down to m = 1 (Bernstein 2001, "Multidigit multiplication for mathematicians"): a modulus
// has one twiddle only, and residues are multiplied in whatever order they come.

#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "vector.h"

namespace helix {

constexpr int64_t COMPLEX = 2 * W;  // floats of a complex vector
constexpr int LEAF_LEVELS = W == 16 ? 4 : W == 8 ? 3 : 2;

// Splits every modulus of `radix * child` vectors of coefficients into `radix` ones of `child` vectors.
struct Pass {
    int radix;
    int64_t child;
    std::vector<float> twiddles;  // for each modulus `radix` complex numbers, as fft_butterflies.h takes them
};

struct Plan {
    // Whether there is a transform of so many vectors of W coefficients.
    static bool exists(int64_t n_vectors);

    explicit Plan(int64_t n_vectors);

    // Vectors of each modulus that the pass splits; 1 after the last.
    int64_t size(size_t pass) const {
        return pass < passes.size() ? passes[pass].child * passes[pass].radix : 1;
    }

    int64_t n_vectors;
    int top;                         // moduli of the first split, by a matrix: 4, 5, 6 or 7
    std::vector<float> top_powers;   // (top, top) complex: the m-th power of root i
    std::vector<float> top_inverse;  // the same divided by n
    std::vector<Pass> passes;        // from there down to single vectors
    // The levels within vectors: a leaf of W vectors holds the moduli that come of one, z^{W W} - exp(i t). Their
    // twiddles are numbers of that one, LEAF_LEVELS complex ones, times vectors that all leaves share.
    std::vector<float> leaf_numbers;
    std::vector<float> leaf_vectors;  // W / 2 complex vectors: 1, 1, 2, ... for each level

   private:
    void add_pass(int radix, int64_t child, const std::vector<double>& angles);
    void add_leaf_numbers(const std::vector<double>& angles);
    void add_leaf_vectors();
};

// The plan for so many vectors, made at most once while it is in use; safe to call from any thread.
std::shared_ptr<const Plan> plan_for(int64_t n_vectors);

}  // namespace helix
