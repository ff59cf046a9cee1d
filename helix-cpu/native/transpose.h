// Transposed copies of matrices, in squares of W by W through registers.

#pragma once

#include <utility>

#include "lane_sums.h"

namespace helix {
// The lanes of a and b in turn: those of their lower halves (START 0) or upper ones (START W / 2).
template <int START, int... I>
inline vf interleave(vf a, vf b, std::integer_sequence<int, I...>) {
    return shuffle<(START + I / 2 + (I % 2) * W)...>(a, b);
}

// Interleaving row i with row i + W/2 moves one bit of an element's row to its column; log2(W) times do all.
inline void transpose_square(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
    constexpr auto all = std::make_integer_sequence<int, W>();
    vf rows[W], next[W];
    for (int i = 0; i < W; i++) rows[i] = load(in + i * in_stride);
#pragma GCC unroll 4
    for (int bit = 1; bit < W; bit *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < W / 2; i++) {
            next[2 * i] = interleave<0>(rows[i], rows[i + W / 2], all);
            next[2 * i + 1] = interleave<W / 2>(rows[i], rows[i + W / 2], all);
        }
#pragma GCC unroll 16
        for (int i = 0; i < W; i++) rows[i] = next[i];
    }
    for (int i = 0; i < W; i++) store(out + i * out_stride, rows[i]);
}

// out (n_columns, n_rows) = in (n_rows, n_columns) transposed; touches nothing beyond.
inline void transpose(const float* in, int64_t in_stride, int64_t n_rows, int64_t n_columns, float* out,
                      int64_t out_stride) {
    for (int64_t r = 0; r < n_rows; r += W)
        for (int64_t c = 0; c < n_columns; c += W) {
            if (r + W <= n_rows && c + W <= n_columns) {
                transpose_square(in + r * in_stride + c, in_stride, out + c * out_stride + r, out_stride);
                continue;
            }
            for (int64_t i = r; i < n_rows && i < r + W; i++)
                for (int64_t j = c; j < n_columns && j < c + W; j++)
                    out[j * out_stride + i] = in[i * in_stride + j];
        }
}

}  // namespace helix
