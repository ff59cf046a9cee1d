// Channels of a tensor (L, D) copied out to rows of their own, and back.

#pragma once

#include <algorithm>
#include <cstdint>

#include "quads.h"

namespace helix {

// Floats from one row to the next: an odd number of cache lines, so that a column of a tile does not fall into a
// few sets of the cache.
inline int64_t row_pitch(int64_t length) {
    const int64_t line = 16, lines = (length + line - 1) / line;
    return (lines | 1) * line;
}

constexpr int64_t AHEAD = 4 * W;  // steps for which memory is asked before they are copied

// Fills rows[c][0, padded) with x[t][c], c < n_channels, and zeros from n_steps on. `padded` is a multiple of W.
template <typename T>
void copy_to_rows(const T* x, int64_t time_stride, int64_t n_steps, int n_channels, float* rows, int64_t pitch,
                  int64_t padded) {
    for (int64_t t = 0; t < padded; t += W) {
        const int steps = int(std::clamp(n_steps - t, int64_t(0), int64_t(W)));
        for (int c = 0; c < n_channels; c += W) {
            const int lanes = std::min(W, n_channels - c);
            vf tile[W] = {};
            if (lanes == W && steps == W)
                for (int i = 0; i < W; i++) {
                    tile[i] = load(x + (t + i) * time_stride + c);
                    __builtin_prefetch(x + (t + i + AHEAD) * time_stride + c);
                    __builtin_prefetch(rows + (c + i) * pitch + t + AHEAD, 1);
                }
            else
                for (int i = 0; i < steps; i++) tile[i] = load(x + (t + i) * time_stride + c, lanes);
            transpose_tile(tile);
            for (int i = 0; i < lanes; i++) store(rows + (c + i) * pitch + t, tile[i]);
        }
    }
}

// Fills y[t][c] with rows[c][t], t < n_steps and c < n_channels.
template <typename T>
void copy_from_rows(const float* rows, int64_t pitch, int64_t n_steps, int n_channels, T* y, int64_t time_stride) {
    for (int64_t t = 0; t < n_steps; t += W) {
        const int steps = int(std::min(n_steps - t, int64_t(W)));
        for (int c = 0; c < n_channels; c += W) {
            const int lanes = std::min(W, n_channels - c);
            vf tile[W] = {};
            for (int i = 0; i < lanes; i++) {
                tile[i] = load(rows + (c + i) * pitch + t, steps);
                __builtin_prefetch(rows + (c + i) * pitch + t + AHEAD);
            }
            transpose_tile(tile);
            if (lanes == W && steps == W)
                for (int i = 0; i < W; i++) {
                    __builtin_prefetch(y + (t + i + AHEAD) * time_stride + c, 1);
                    store(y + (t + i) * time_stride + c, tile[i]);
                }
            else
                for (int i = 0; i < steps; i++) store(y + (t + i) * time_stride + c, tile[i], lanes);
        }
    }
}

}  // namespace helix
