// Products of small matrices out of cache, a tile of the result at a time kept in registers.

#pragma once

#include <type_traits>

#include "vector.h"

namespace helix {

// A tile has up to 6 rows of that many vectors: what leaves a few of the registers for operands.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int MAX_VECTORS = 4;
#else
constexpr int MAX_VECTORS = 2;
#endif

// R rows of V vectors of a matrix, to which products are added.
template <int R, int V>
struct Tile {
    vf rows[R][V];

    // rows += a b: a (R, n) by its strides, b n rows of V vectors.
    __attribute__((always_inline)) inline void add(const float* a, int64_t row_stride, int64_t stride,
                                                   const float* b, int64_t b_stride, int64_t n) {
        for (int64_t k = 0; k < n; k++) {
            vf right[V];
            for (int v = 0; v < V; v++) right[v] = load(b + k * b_stride + v * W);
#pragma GCC unroll 6
            for (int r = 0; r < R; r++) {
                const vf left = splat(a[r * row_stride + k * stride]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) rows[r][v] += left * right[v];
            }
        }
    }

    // Calls f(row, r, v) for each vector, which it may change.
    template <typename F>
    __attribute__((always_inline)) inline void each(const F& f) {
#pragma GCC unroll 6
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int v = 0; v < V; v++) f(rows[r][v], r, v);
    }
};

template <int V, typename F>
inline void for_row_tiles(int64_t first, int64_t n_rows, int64_t column, const F& f) {
    int64_t row = first;
    for (; row + 6 <= n_rows && row + 8 != n_rows; row += 6) f(Tile<6, V>(), row, column);
    for (; row + 4 <= n_rows; row += 4) f(Tile<4, V>(), row, column);
    for (; row + 2 <= n_rows; row += 2) f(Tile<2, V>(), row, column);
    for (; row < n_rows; row++) f(Tile<1, V>(), row, column);
}

// Calls f(tile of zeros, row, column) for tiles that cover a matrix of n_rows by n_columns, the latter a
// multiple of W. Where LOWER is set only what reaches the diagonal or lies below: rows begin at the column.
template <bool LOWER = false, typename F>
inline void for_matrix(int64_t n_rows, int64_t n_columns, const F& f) {
    int64_t column = 0;
    const auto first = [&] { return LOWER ? column : int64_t(0); };
    for (; column + MAX_VECTORS * W <= n_columns; column += MAX_VECTORS * W)
        for_row_tiles<MAX_VECTORS>(first(), n_rows, column, f);
    for (; column + 2 * W <= n_columns; column += 2 * W) for_row_tiles<2>(first(), n_rows, column, f);
    for (; column < n_columns; column += W) for_row_tiles<1>(first(), n_rows, column, f);
}

// The least multiple of W that is not below n.
inline int64_t padded(int64_t n) { return (n + W - 1) / W * W; }

}  // namespace helix
