// What the selective scan's kernels run on: the op's arguments, slabs of channels, and chunks of time.
//
// Lanes are channels. A chunk of STEPS steps of one vector of channels is made ready (step sizes, dt u), then
// a few states at a time go through it in registers; what they share lies in the first cache. Vectors of
// channels follow one another within a chunk of time, so that rows of memory are read as they lie.

#pragma once

#include <algorithm>

#include "functions.h"
#include "sequences.h"
#include "transpose.h"

namespace helix::selective_scan {

constexpr int STEPS = 16;  // of a chunk, and from one saved state to the next
constexpr int STATES = 4;  // that go through a chunk together

// Strides are in elements; the last dimension's is 1, and tensors without strides here are contiguous.
struct Inputs {
    const void *u, *delta, *B, *C, *z;  // (B, L, D) or (B, L, G, N); z may be null
    const float *A, *D, *delta_bias;    // (D, N); (D) or null; (D) or null
    const float* initial_state;         // (n, D, N) or null
    const int64_t* bounds;              // (n + 1) of packed sequences, or null
    int64_t n_sequences, seq_len, d_model, d_state, n_groups;
    int64_t u_batch, u_time, delta_batch, delta_time, z_batch, z_time;
    int64_t B_batch, B_time, B_group, C_batch, C_time, C_group;
    int64_t softplus, dtype;

    Sequences sequences() const { return Sequences{bounds, n_sequences, seq_len}; }
    int64_t channels_per_group() const { return d_model / n_groups; }
    int64_t n_elements() const { return sequences().n_tokens() * d_model * d_state; }
};

struct Forward {
    Inputs in;
    void* y;             // (B, L, D)
    float* final_state;  // (n, D, N)
    float* states;       // ((L - 1) / STEPS, B, G, N, D / G), or null for none
};

// Channels of one group that go through time together.
struct Slab {
    int64_t group, first, n_channels;

    int64_t n_blocks() const { return (n_channels + W - 1) / W; }
    int lanes(int64_t block) const { return int(std::min<int64_t>(W, n_channels - block * W)); }
};

// All channels in slabs of up to `blocks` vectors, none across the border of a group.
struct Slabs {
    int64_t n_groups, group_size, blocks;

    int64_t per_group() const { return (group_size + blocks * W - 1) / (blocks * W); }
    int64_t count() const { return n_groups * per_group(); }
    Slab operator[](int64_t i) const {
        const int64_t group = i / per_group(), offset = i % per_group() * blocks * W;
        return Slab{group, group * group_size + offset, std::min(blocks * W, group_size - offset)};
    }
};

// Calls f(lanes), lanes being a constant where the vector is whole.
template <typename F>
inline void with_lanes(int n, const F& f) {
    if (n == W)
        f(std::integral_constant<int, W>());
    else
        f(n);
}

// n values of a vector (D) from channel c on; zeros where it is null.
inline vf load_channels(const float* values, int64_t c, int n) { return values ? load(values + c, n) : vf{}; }

// Lays rows (W, N) of which n are there out as (N, W), zeros in the other lanes; null is zeros.
inline void load_states(const float* rows, int64_t d_state, int n, float scale, float* out) {
    if (n < W || rows == nullptr) std::fill(out, out + d_state * W, 0.0f);
    if (rows == nullptr) return;
    transpose(rows, d_state, n, d_state, out, W);
    if (scale != 1.0f)
        for (int64_t j = 0; j < d_state; j++) store(out + j * W, load(out + j * W) * scale);
}

inline void store_states(const float* states, int64_t d_state, int n, float* rows) {
    transpose(states, W, d_state, n, rows, d_state);
}

// A, times log2(e), of one vector of channels (N, W), and its largest magnitude in each lane.
inline vf load_decay_rates(const Inputs& in, int64_t channel, int n, float* A) {
    load_states(in.A + channel * in.d_state, in.d_state, n, LOG2_E, A);
    vf largest{};
    for (int64_t j = 0; j < in.d_state; j++) largest = max(abs(load(A + j * W)), largest);
    return largest;
}

inline bool any(vi mask) {
    int32_t found = 0;
    for (int i = 0; i < W; i++) found |= mask[i];
    return found != 0;
}

// B or C of a chunk, as floats (n, N), rows apart by `time_stride`.
struct Projection {
    const float* rows;
    int64_t time_stride;

    const float* at(int t) const { return rows + t * time_stride; }
};

inline Projection as_floats(const float* rows, int64_t time_stride, int, int64_t, float*) {
    return Projection{rows, time_stride};
}

inline Projection as_floats(const bf16* rows, int64_t time_stride, int n, int64_t d_state, float* buffer) {
    for (int t = 0; t < n; t++)
        for (int64_t j = 0; j < d_state; j++) buffer[t * d_state + j] = widen(rows[t * time_stride + j]);
    return Projection{buffer, d_state};
}

// Rows of memory that will be wanted soon, `stride` bytes apart. One is asked for at each step: all at once
// they would be more than the processor can wait for, and it would stand still.
struct Fetch {
    const void* rows = nullptr;
    int64_t stride = 0;

    void row(int t) const { __builtin_prefetch(static_cast<const char*>(rows) + t * stride); }
};

// Where the states before a chunk are kept, N rows; null for nowhere.
struct Saved {
    float* rows = nullptr;
    int64_t stride = 0;
    int lanes = W;

    template <int N>
    void put(int64_t j, const vf (&states)[N]) const {
        if (rows == nullptr) return;
        with_lanes(lanes, [&](auto n) {
#pragma GCC unroll 4
            for (int i = 0; i < N; i++) store(rows + (j + i) * stride, states[i], n);
        });
    }
};

constexpr int FETCHES = 4;

// A chunk of n steps of one vector of channels; dt, x and y are (STEPS, W).
struct Chunk {
    Projection B, C;
    int n;
    const float *dt = nullptr, *x = nullptr;  // step sizes; dt u
    float* y = nullptr;                       // gathers C h
    bool wide = false;                        // whether some |dt A| is beyond what `exp2_product` takes
    Saved saved = {};                         // these two are for the forward pass
    Fetch fetches[FETCHES] = {};              // one for each of the first tiles of states

    // What tile of states number `tile` asks for; those left without rows, for what is there already.
    Fetch fetch(int tile) const { return tile < FETCHES ? fetches[tile] : Fetch{dt, 0}; }
};

// One sequence of one slab of channels: where what belongs to step t and vector of channels k lies.
template <typename T>
struct View {
    const Inputs& in;
    Slab slab;
    int64_t sequence;

    int64_t seq_len() const { return in.sequences().size(sequence); }
    int64_t token(int64_t t) const { return in.sequences().start(sequence) + t; }
    int64_t channel(int64_t k) const { return slab.first + k * W; }
    int64_t state_row(int64_t k) const { return (sequence * in.d_model + channel(k)) * in.d_state; }
    int64_t output(int64_t t, int64_t k) const { return token(t) * in.d_model + channel(k); }
    const T* u(int64_t t, int64_t k) const { return row(in.u, in.u_batch, in.u_time, t) + channel(k); }
    const T* z(int64_t t, int64_t k) const { return row(in.z, in.z_batch, in.z_time, t) + channel(k); }
    const T* delta(int64_t t, int64_t k) const {
        return row(in.delta, in.delta_batch, in.delta_time, t) + channel(k);
    }
    // n steps of B and C, in the buffers (STEPS, N) where they are not floats already.
    Chunk chunk(int64_t t, int n, float* B_buffer, float* C_buffer) const {
        const T* B = row(in.B, in.B_batch, in.B_time, t) + slab.group * in.B_group;
        const T* C = row(in.C, in.C_batch, in.C_time, t) + slab.group * in.C_group;
        return Chunk{as_floats(B, in.B_time, n, in.d_state, B_buffer),
                     as_floats(C, in.C_time, n, in.d_state, C_buffer), n};
    }
    // Where the saved states (L - 1) / STEPS, B, G, N, D / G have the state after chunk i.
    int64_t saved_state(int64_t i, int64_t k) const {
        const int64_t size = in.channels_per_group();
        const int64_t row = (i * in.n_sequences + sequence) * in.n_groups + slab.group;
        return row * in.d_state * size + channel(k) - slab.group * size;
    }

   private:
    const T* row(const void* data, int64_t batch_stride, int64_t time_stride, int64_t t) const {
        return Rows<const T>{static_cast<const T*>(data), batch_stride, time_stride}.at(in.sequences(),
                                                                                        sequence, t);
    }
};

// Makes the step sizes dt (n, W) of a chunk, and exp(-|delta + bias|) where there is a softplus; returns the
// largest |dt| of each lane. Several short loops: one long chain of operations would leave ports idle.
template <typename T, typename Lanes>
inline vf step_sizes(const T* delta, int64_t time_stride, vf bias, bool with_softplus, int n, Lanes lanes,
                     float* dt, float* exps) {
    vf largest{};
    for (int i = 0; i < n; i++) store(dt + i * W, load(delta + i * time_stride, lanes) + bias);
    if (with_softplus) {
        for (int i = 0; i < n; i++) store(exps + i * W, exp_of_minus_abs(load(dt + i * W)));
        for (int i = 0; i < n; i++) store(dt + i * W, softplus(load(dt + i * W), load(exps + i * W)));
    }
    for (int i = 0; i < n; i++) largest = max(largest, abs(load(dt + i * W)));
    return largest;
}

// Whether some |dt A|, or a NaN, is beyond what `exp2_product` takes.
inline bool is_wide(vf largest_dt, vf largest_A) { return any(!(largest_dt * largest_A < 126.0f)); }

// `exp2_product` of N vectors, each operation written for all of them before the next: those of one vector
// wait for one another, and the processor does not look far enough ahead to fill its ports with others.
template <int N>
inline void exp2_products(vf a, const vf (&b)[N], vf (&power)[N]) {
    vf shifted[N], f[N], slope[N];
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) shifted[i] = fma(a, b[i], splat(powers::ROUND));
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) f[i] = fma(a, b[i], powers::ROUND - shifted[i]);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) {
        const vu point = reinterpret_cast<vu>(powers::points(as_int(shifted[i])));
        power[i] = reinterpret_cast<vf>(point + (reinterpret_cast<vu>(shifted[i]) << powers::SHIFT));
    }
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) slope[i] = powers::slope(f[i]);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) power[i] = fma(power[i] * f[i], slope[i], power[i]);
}

// exp(dt A) of N states, A being times log2(e).
template <bool WIDE, bool AT_ONCE, int N>
inline void decays(vf dt, const vf (&A)[N], vf (&to)[N]) {
    if constexpr (AT_ONCE && !WIDE) return exp2_products(dt, A, to);
#pragma GCC unroll 4
    for (int i = 0; i < N; i++) to[i] = WIDE ? exp2(dt * A[i]) : exp2_product(dt, A[i]);
}

// Where the backward pass finds the decay of step t and state i of N; the state before the step is beside it.
inline int64_t decay_at(int t, int i, int N) { return (t * N + i) * 2 * W; }
inline int64_t state_at(int t, int i, int N) { return decay_at(t, i, N) + W; }

// Takes N states h, from state j on, through a chunk; adds C h to y where OUTPUT says. With KEEP it writes
// decays and states to `kept` (STEPS + 1, N, 2, W).
template <int N, bool WIDE, bool OUTPUT, bool KEEP = false>
inline void advance_tile(const Chunk& chunk, const float* A, int64_t j, vf (&h)[N], Fetch fetch,
                         float* kept = nullptr) {
    constexpr bool AT_ONCE = W == 16 && !KEEP;  // where stores leave ports idle anyway, or registers are few
    // Copies, which a store that might reach the chunk does not make the compiler load anew.
    const float *const dts = chunk.dt, *const xs = chunk.x, *B = chunk.B.at(0) + j, *C = chunk.C.at(0) + j;
    float* const ys = chunk.y;
    const int64_t B_time = chunk.B.time_stride, C_time = chunk.C.time_stride;
    vf rate[N];
    for (int i = 0; i < N; i++) rate[i] = load(A + i * W);
    for (int t = 0, n = chunk.n; t < n; t++, B += B_time, C += C_time) {
        const vf dt = load(dts + t * W), x = load(xs + t * W);
        vf y = OUTPUT ? load(ys + t * W) : vf{};
        if (OUTPUT) fetch.row(t);
        vf a[N];
        decays<WIDE, AT_ONCE>(dt, rate, a);
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) {
            if (KEEP) store(kept + decay_at(t, i, N), a[i]), store(kept + state_at(t, i, N), h[i]);
            h[i] = fma(a[i], h[i], x * B[i]);
            if (OUTPUT) y = fma(h[i], splat(C[i]), y);
        }
        if (OUTPUT) store(ys + t * W, y);
    }
    for (int i = 0; KEEP && i < N; i++) store(kept + state_at(chunk.n, i, N), h[i]);
}

// Takes N states (N, W) in memory through a chunk.
template <int N, bool WIDE, bool OUTPUT>
inline void advance_states(const Chunk& chunk, const float* A, int64_t j, float* states, Fetch fetch) {
    vf h[N];
    for (int i = 0; i < N; i++) h[i] = load(states + i * W);
    if (OUTPUT) chunk.saved.put(j, h);
    advance_tile<N, WIDE, OUTPUT>(chunk, A, j, h, fetch);
    for (int i = 0; i < N; i++) store(states + i * W, h[i]);
}

template <bool WIDE, bool OUTPUT>
inline void advance(const Chunk& chunk, const float* A, int64_t d_state, float* h) {
    int64_t j = 0;
    int tile = 0;
    for (; j + STATES <= d_state; j += STATES)
        advance_states<STATES, WIDE, OUTPUT>(chunk, A + j * W, j, h + j * W, chunk.fetch(tile++));
    for (; j < d_state; j++)
        advance_states<1, WIDE, OUTPUT>(chunk, A + j * W, j, h + j * W, chunk.fetch(tile++));
    // What too few states left over.
    for (; OUTPUT && tile < FETCHES; tile++)
        for (int t = 0; t < chunk.n; t++) chunk.fetch(tile).row(t);
}

// Takes all states of one vector of channels, h (N, W), through a chunk.
template <bool OUTPUT>
inline void advance(const Chunk& chunk, const float* A, int64_t d_state, float* h) {
    if (chunk.wide)
        advance<true, OUTPUT>(chunk, A, d_state, h);
    else
        advance<false, OUTPUT>(chunk, A, d_state, h);
}

}  // namespace helix::selective_scan
