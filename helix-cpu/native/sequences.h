// Sequences, as rows of a batch or packed one behind another, and the rows of channels that lie in them.

#pragma once

#include <algorithm>
#include <type_traits>

#include "vector.h"

namespace helix {

// Of a block of work: long runs of memory, and few enough for a cache.
constexpr int64_t MOST_CHANNELS = 2048;

template <typename T>
constexpr T ZEROS[MOST_CHANNELS] = {};

// n sequences: of `length` tokens each, or between `bounds` (n + 1) where those are given. Tokens are counted
// through all of them.
struct Sequences {
    const int64_t* bounds;
    int64_t n, length;

    int64_t start(int64_t i) const { return bounds ? bounds[i] : i * length; }
    int64_t size(int64_t i) const { return start(i + 1) - start(i); }
    int64_t n_tokens() const { return start(n); }

    // Calls f(i, t0, t1) for the part t0 <= t < t1 of each sequence i that lies in tokens [first, last).
    template <typename F>
    void for_parts(int64_t first, int64_t last, const F& f) const {
        for (int64_t i = holding(first); i < n && start(i) < last; i++) {
            const int64_t t0 = std::max(first - start(i), int64_t(0));
            const int64_t t1 = std::min(last - start(i), size(i));
            if (t0 < t1) f(i, t0, t1);
        }
    }

   private:
    int64_t holding(int64_t token) const {
        if (!bounds) return length ? token / length : n;
        return std::upper_bound(bounds, bounds + n + 1, token) - bounds - 1;
    }
};

// A tensor (B, L, D), its channels side by side.
template <typename T>
struct Rows {
    T* data;
    int64_t batch_stride, time_stride;

    T* at(const Sequences& sequences, int64_t i, int64_t t) const {
        return sequences.bounds ? data + (sequences.bounds[i] + t) * time_stride
                                : data + i * batch_stride + t * time_stride;
    }
};

// Calls f(c, n) for each vector of channels, c <= i < c + n; n is a constant for all but the last one.
template <typename F>
inline void for_lanes(int64_t count, const F& f) {
    int64_t c = 0;
    for (; c + W <= count; c += W) f(c, std::integral_constant<int, W>());
    if (c < count) f(c, int(count - c));
}

}  // namespace helix
