// What a long convolution's kernels are given, and how its work is cut up.

#pragma once

#include <algorithm>
#include <cstdint>

#include "fft_plan.h"

namespace helix {
namespace long_conv {

struct Forward {
    const void* x;        // (B, L, D)
    const float* kernel;  // (D, K), K <= L
    const float* skip;    // (D) or null
    void* y;              // (B, L, D)
    int64_t batch_size, seq_len, d_model, n_lags, x_batch_stride, x_time_stride, kernel_stride, dtype;
};

struct Backward {
    const void* x;
    const float* kernel;
    const float* skip;
    const void* grad_y;  // (B, L, D)
    void* grad_x;        // (B, L, D)
    float* grad_kernel;  // (D, K)
    float* grad_skip;    // (D) or null
    int64_t batch_size, seq_len, d_model, n_lags, x_batch_stride, x_time_stride, kernel_stride, dtype;
    int64_t grad_batch_stride, grad_time_stride, grad_kernel_stride;
};

// How a row is transformed: in segments of `step` outputs each, from windows of 2n samples ("overlap-save"), or in
// one piece. Where the whole row fits into n samples the second half of the window is zero.
struct Cut {
    int64_t n_vectors, n_segments, step, margin;
    bool two_halves;

    int64_t window() const { return n_vectors * W * (two_halves ? 2 : 1); }
    int64_t row() const { return (n_segments - 1) * step + window(); }
};

// The cut that costs least for a sequence of L and K lags; `cost` is told in the units of `direct_cost`.
Cut best_cut(int64_t seq_len, int64_t n_lags, int64_t batch_size, double* cost);

// Multiply-adds of a channel's convolution without a transform.
inline double direct_cost(int64_t seq_len, int64_t n_lags) {
    return double(n_lags) * double(seq_len) - 0.5 * double(n_lags) * double(n_lags - 1);
}

// Channels that a thread takes at once: a cache line of x where there are many, else what leaves work for all.
inline int64_t channels_of_block(int64_t d_model) { return d_model >= 64 ? 16 : d_model >= 16 ? 8 : 4; }

}  // namespace long_conv
}  // namespace helix
