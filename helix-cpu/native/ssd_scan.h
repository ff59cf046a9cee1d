// What the state-space duality's kernels run on: the op's arguments, step sizes and decays of a few tokens.

#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "functions.h"
#include "sequences.h"

namespace helix::ssd {

using vd = double __attribute__((vector_size(4 * W)));
using vl = int64_t __attribute__((vector_size(4 * W)));

// H heads of P channels with a state (P, N) each; G groups of B and C. Distances are in elements, the last
// dimension's is 1.
struct Inputs {
    const void *x, *B, *C;        // (B, L, H, P), (B, L, G, N), (B, L, G, N)
    const float *dt, *A;          // (B, L, H); (H) or (B, L, H)
    const float *D, *dt_bias;     // (H) or (H, P), or null; (H) or null
    const float* initial_state;   // (n, H, P, N) or null
    const int64_t* bounds;        // (n + 1) or null
    int64_t n_sequences, seq_len, n_heads, n_groups, head_dim, d_state;
    int64_t x_batch, x_time, x_head, B_batch, B_time, B_group, C_batch, C_time, C_group;
    int64_t dt_batch, dt_time, A_batch, A_time, A_has_tokens, D_has_channels, dtype, softplus;
    double dt_min, dt_max;

    Sequences sequences() const { return Sequences{bounds, n_sequences, seq_len}; }
    int64_t longest() const {
        int64_t most = 0;
        for (int64_t i = 0; i < n_sequences; i++) most = std::max(most, sequences().size(i));
        return most;
    }
    int64_t group(int64_t head) const { return head / (n_heads / n_groups); }
    int64_t state_size() const { return head_dim * d_state; }

    template <typename T>
    const T* x_at(int64_t i, int64_t t, int64_t head) const {
        return at<T>(x, i, t, x_batch, x_time) + head * x_head;
    }
    template <typename T>
    const T* B_at(int64_t i, int64_t t, int64_t g) const {
        return at<T>(B, i, t, B_batch, B_time) + g * B_group;
    }
    template <typename T>
    const T* C_at(int64_t i, int64_t t, int64_t g) const {
        return at<T>(C, i, t, C_batch, C_time) + g * C_group;
    }
    const float* dt_at(int64_t i, int64_t t, int64_t head) const {
        return at<float>(dt, i, t, dt_batch, dt_time) + head;
    }
    const float* A_at(int64_t i, int64_t t, int64_t head) const {
        return at<float>(A, i, t, A_batch, A_time) + head;
    }
    float D_at(int64_t head, int64_t p) const { return D_has_channels ? D[head * head_dim + p] : D[head]; }
    vf D_lanes(int64_t head, int64_t p, int n) const {
        return D_has_channels ? load(D + head * head_dim + p, n) : splat(D[head]);
    }

   private:
    template <typename T>
    const T* at(const void* data, int64_t i, int64_t t, int64_t batch_stride, int64_t time_stride) const {
        return Rows<const T>{static_cast<const T*>(data), batch_stride, time_stride}.at(sequences(), i, t);
    }
};

struct Forward {
    void* y;             // (B, L, H, P)
    float* final_state;  // (n, H, P, N)
    Inputs in;

    template <typename T>
    T* y_at(int64_t i, int64_t t, int64_t head) const {
        return static_cast<T*>(y) + ((in.sequences().start(i) + t) * in.n_heads + head) * in.head_dim;
    }
};

// e^x to 1e-11 relative; a normal number near 0 where it would be less, infinity where it overflows.
inline vd exp(vd x) {
    constexpr double ROUND = 6755399441055744.0, LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;
    constexpr double LEAST = -708.0, LARGEST = 709.7;
    const vd clamped = x < LEAST ? vd{} + LEAST : x > LARGEST ? vd{} + LARGEST : x;
    const vd shifted = clamped * LOG2_E + ROUND;
    const vd f = clamped - (shifted - ROUND) * LN_2;
    vd p = vd{} + 1.0 / 362880;
    for (double factor : {1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5, 1.0, 1.0})
        p = p * f + factor;
    const vl exponent = reinterpret_cast<vl>(shifted) - reinterpret_cast<vl>(vd{} + ROUND);
    const vd scaled = reinterpret_cast<vd>(reinterpret_cast<vl>(p) + (exponent << 52));
    return x > LARGEST ? vd{} + __builtin_inf() : x == x ? scaled : x;
}

// Step sizes of the tokens of a chunk, at most CHUNK, in one head, and how much of the state each leaves.
// Decays are in double: near 1 their rounding to float would add up over as many tokens as the state lasts.
template <int CHUNK>
struct Steps {
    float biased[CHUNK], dt[CHUNK], rate[CHUNK];
    double decay[CHUNK];

    void compute(const Inputs& in, int64_t i, int64_t t0, int64_t n, int64_t head) {
        const float bias = in.dt_bias ? in.dt_bias[head] : 0.0f;
        for (int64_t t = 0; t < n; t++) biased[t] = *in.dt_at(i, t0 + t, head) + bias;
        for (int64_t t = 0; t < n; t++) rate[t] = *in.A_at(i, t0 + t, head);
        for (int64_t t = n; t < CHUNK; t++) biased[t] = rate[t] = 0.0f;
        for (int64_t t = 0; t < n; t += W) {
            const vf free = in.softplus ? helix::softplus(load(biased + t)) : load(biased + t);
            store(dt + t, limit(free, in));
        }
        for (int64_t t = n; t < CHUNK; t++) dt[t] = 0.0f;
        for (int64_t t = 0; t < n; t += W / 2) {
            vd log_decay;
            for (int lane = 0; lane < W / 2; lane++) log_decay[lane] = double(dt[t + lane]) * rate[t + lane];
            log_decay = exp(log_decay);
            std::memcpy(decay + t, &log_decay, sizeof log_decay);
        }
    }

    // d dt / d (dt as given), at token t.
    vf slope(const Inputs& in, int64_t t) const {
        const vf x = load(biased + t), free = in.softplus ? helix::softplus(x) : x;
        const vi inside = (free >= float(in.dt_min)) & (free <= float(in.dt_max));
        return select(inside, in.softplus ? sigmoid(x) : splat(1.0f), vf{});
    }

   private:
    static vf limit(vf x, const Inputs& in) {
        const vf low = splat(float(in.dt_min)), high = splat(float(in.dt_max));
        return select(x < low, low, select(x > high, high, x));
    }
};

struct Chunk {
    int64_t sequence, start, size;
    int64_t token;  // the first one's number among those of all sequences
};

struct Chunks {
    std::vector<Chunk> all;
    std::vector<int64_t> first;  // of each sequence, and their number
    int64_t most = 0;            // in a sequence

    Chunks(const Sequences& sequences, int64_t tokens) {
        for (int64_t i = 0; i < sequences.n; i++) {
            first.push_back(int64_t(all.size()));
            const int64_t start = sequences.start(i), size = sequences.size(i);
            for (int64_t t = 0; t < size; t += tokens)
                all.push_back({i, t, std::min(tokens, size - t), start + t});
            most = std::max(most, int64_t(all.size()) - first.back());
        }
        first.push_back(int64_t(all.size()));
    }
};

// Work that can be cut: so many wholes of so many parts, each with so many floats that it comes back to.
struct Work {
    int64_t wholes, parts, floats;
};

// How many parts of a whole to do together: as many as share the threads evenly and stay in so much cache.
inline int64_t shared_evenly(const Work& work, int64_t cache, int64_t threads) {
    int64_t best = 1, least = work.wholes * work.parts;
    for (int64_t n = 1; n <= work.parts && (n == 1 || n * work.floats <= cache); n++) {
        const int64_t pieces = work.wholes * ((work.parts + n - 1) / n);
        const int64_t time = (pieces + threads - 1) / threads * n;
        if (time <= least) best = n, least = time;
    }
    return best;
}

}  // namespace helix::ssd
