// What the ops share that keep a memory S (K, V) of products of keys and values for each head.
//
//     u_t = S_{t-1}^T a_t
//     S_t = diag(decay_t) S_{t-1} + b_t u_t^T + k_t x_t^T
//     o_t = S_t^T q_t
//
// A column of S depends on no other, so that lanes run over V: a tile is all K rows of a few vectors of
// columns, small enough for the first-level cache. Vectors over K (q, k, decay, a, b) are staged in float32,
// a few tokens at a time, and their elements broadcast.

#pragma once

#include <algorithm>
#include <type_traits>

#include "call.h"
#include "functions.h"
#include "parallel.h"

namespace helix::linear_attention {

// A rule says what the decay is, and whether the step reads the state before it writes.
// ROW_GATES: a decay for each row of S, else one for all of S.
// READS: whether u is there; APART: whether it is read along a and written along b, of their own; else it is
// read along k, and x_t = beta_t (v_t - decay_t u_t) writes it.
template <bool ROW_GATES_, bool READS_, bool APART_>
struct Rule {
    static constexpr bool ROW_GATES = ROW_GATES_, READS = READS_, APART = APART_;
    // Where a token's staged rows lie, and likewise their gradients.
    static constexpr int Q = 0, K = 1, GATE = 2, A = APART ? 3 : K, B = 4;
    static constexpr int N_ROWS = APART ? 5 : ROW_GATES ? 3 : 2;
};

using GatedLinear = Rule<true, false, false>;
using Rwkv7 = Rule<true, true, true>;
using GatedDelta = Rule<false, true, false>;

// The most vectors of columns in a tile: as many as the registers hold beside what is broadcast.
constexpr int MAX_VECTORS = W == 16 ? 4 : 2;

// A tensor (B, L, H, K or V) whose last stride is 1; null where the rule has none.
struct Tokens {
    const void* data;
    int64_t batch_stride, token_stride, head_stride, last_stride;

    template <typename T>
    const T* at(int64_t batch, int64_t token, int64_t head) const {
        return static_cast<const T*>(data) + batch * batch_stride + token * token_stride + head * head_stride;
    }
};

struct Inputs {
    Tokens q, k, v, gate, a, b;          // gate holds logarithms
    const float *log_decay, *beta;       // (B, L, H) or null
    const float* initial_state;          // (N, H, K, V) or null
    const int64_t* bounds;               // (N + 1) of sequences packed into one row, or null
    int64_t n_sequences, seq_len, n_heads, k_dim, v_dim, dtype;
};

// A sequence: which row of the batch it lies in, and where.
struct Span {
    int64_t batch, start, length;
};

inline Span span_of(const Inputs& in, int64_t sequence) {
    if (!in.bounds) return {sequence, 0, in.seq_len};
    return {0, in.bounds[sequence], in.bounds[sequence + 1] - in.bounds[sequence]};
}

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

inline int lanes_left(int64_t n) { return int(std::clamp<int64_t>(n, 0, W)); }

// Calls f with the number of vectors, as a constant, that a tile of the n columns left takes.
template <typename F>
inline void with_vectors(int64_t n, const F& f) {
    if (n <= W)
        f(std::integral_constant<int, 1>());
    else if (MAX_VECTORS == 2 || n <= 2 * W)
        f(std::integral_constant<int, 2>());
    else if (n <= 3 * W)
        f(std::integral_constant<int, 3>());
    else
        f(std::integral_constant<int, 4>());
}

// Stages one token's vector over K, padded with zeros to whole vectors, and calls for the one that lies `ahead`:
// a head's rows are too far apart for the processor to foresee.
template <typename T, typename F>
inline void stage(const T* from, int64_t n, int64_t ahead, float* to, const F& f) {
    for (int64_t i = 0; i < n; i += W) {
        __builtin_prefetch(from + ahead + i);
        store(to + i, f(load(from + i, lanes_left(n - i))));
    }
}

// The tokens of a chunk as the steps read them.
template <typename R>
struct Staged {
    float* rows;      // (n, N_ROWS, K padded)
    float* decays;    // (n), where the rule has one for all of S
    int64_t k_padded;

    static int64_t size(int64_t n_tokens, int64_t k_padded) {
        return n_tokens * R::N_ROWS * k_padded + round_up(n_tokens, W);
    }

    Staged(float* memory, int64_t n_tokens, int64_t padded)
        : rows(memory), decays(memory + n_tokens * R::N_ROWS * padded), k_padded(padded) {}

    float* row(int64_t token, int which) const { return rows + (token * R::N_ROWS + which) * k_padded; }

    // Stages n tokens from `start` on. The chunk `next` tokens further is the one to be staged after it.
    template <typename T>
    void fill(const Inputs& in, const Span& span, int64_t head, int64_t start, int64_t n, int64_t next,
              float scale) const {
        for (int64_t i = 0; i < n; i++) {
            const int64_t token = span.start + start + i;
            const auto put_row = [&](int which, const Tokens& tokens, const auto& f) {
                stage(tokens.at<T>(span.batch, token, head), in.k_dim, next * tokens.token_stride, row(i, which), f);
            };
            const auto as_is = [](vf x) { return x; };
            put_row(R::Q, in.q, [scale](vf x) { return x * scale; });
            put_row(R::K, in.k, as_is);
            if constexpr (R::ROW_GATES) put_row(R::GATE, in.gate, [](vf x) { return exp(x); });
            if constexpr (R::APART) put_row(R::A, in.a, as_is);
            if constexpr (R::APART) put_row(R::B, in.b, as_is);
            if constexpr (!R::ROW_GATES)
                decays[i] = in.log_decay[(span.batch * in.seq_len + token) * in.n_heads + head];
        }
        if constexpr (!R::ROW_GATES)
            for (int64_t i = 0; i < n; i += W) store(decays + i, exp(load(decays + i)));
    }
};

template <int NV, typename T>
inline void load_columns(vf* x, const T* from, int64_t n) {
    for (int j = 0; j < NV; j++) x[j] = load(from + j * W, lanes_left(n - j * W));
}

template <int NV, typename T>
inline void store_columns(T* to, const vf* x, int64_t n) {
    for (int j = 0; j < NV; j++) store(to + j * W, x[j], lanes_left(n - j * W));
}

// A tile of a state (K, V) in memory, or zeros where null, to one of k_padded rows of NV vectors.
template <int NV>
inline void load_state(float* to, const float* from, int64_t k_dim, int64_t v_dim, int64_t n, int64_t padded) {
    for (int64_t i = 0; i < padded; i++) {
        vf row[NV] = {};
        if (from && i < k_dim) load_columns<NV>(row, from + i * v_dim, n);
        store_columns<NV>(to + i * NV * W, row, NV * W);
    }
}

template <int NV>
inline void store_state(float* to, const float* from, int64_t k_dim, int64_t v_dim, int64_t n) {
    for (int64_t i = 0; i < k_dim; i++) {
        vf row[NV];
        load_columns<NV>(row, from + i * NV * W, NV * W);
        store_columns<NV>(to + i * v_dim, row, n);
    }
}

// x in every lane, in a register: compilers otherwise load it anew for each vector that it multiplies.
inline vf broadcast(float x) {
    vf lanes = splat(x);
#if defined(__x86_64__)
    asm("" : "+v"(lanes));
#endif
    return lanes;
}

// S^T a.
template <int NV>
inline void read(vf* u, const float* state, int64_t stride, const float* a, int64_t k_padded) {
    vf sums[NV] = {};
    for (int64_t i = 0; i < k_padded; i++)
        for (int j = 0; j < NV; j++) sums[j] += a[i] * load(state + i * stride + j * W);
    std::copy_n(sums, NV, u);
}

// A rule's x: what is written along k. `beta` and `decay_` are used by the rule that reads along k.
template <typename R, int NV>
inline void written(vf* x, const vf* v, const vf* u, float beta, float decay_) {
    for (int j = 0; j < NV; j++) {
        if constexpr (R::READS && !R::APART)
            x[j] = beta * (v[j] - decay_ * u[j]);
        else
            x[j] = v[j];
    }
}

// A state where a step finds it or leaves it.
struct Place {
    float* data;
    int64_t stride;
};

// One step: S from `in` to `out` (which may be the same), o = S^T q where wanted, and u of the next step, read
// along next_a.
template <typename R, int NV, bool OUTPUT>
inline void step(Place in, Place out, const Staged<R>& tokens, int64_t t, const float* next_a, const vf* x, vf* u,
                 vf* o) {
    constexpr int ROWS = 4 / NV ? 4 / NV : 1;  // sums apart, so that one need not wait for the last addition
    const float *q = tokens.row(t, R::Q), *k = tokens.row(t, R::K), *gate = tokens.row(t, R::GATE),
                *b = tokens.row(t, R::B);
    const float decay_ = tokens.decays[t];
    vf outputs[ROWS][NV] = {}, reads[ROWS][NV] = {};
    for (int64_t i = 0; i < tokens.k_padded; i += ROWS) {
        for (int r = 0; r < ROWS; r++) {
            const vf row_gate = broadcast(R::ROW_GATES ? gate[i + r] : decay_), row_k = broadcast(k[i + r]);
            const vf row_q = broadcast(OUTPUT ? q[i + r] : 0.0f), row_a = broadcast(R::READS ? next_a[i + r] : 0.0f);
            const vf row_b = broadcast(R::APART ? b[i + r] : 0.0f);
            for (int j = 0; j < NV; j++) {
                vf s = load(in.data + (i + r) * in.stride + j * W) * row_gate + row_k * x[j];
                if constexpr (R::APART) s += row_b * u[j];
                store(out.data + (i + r) * out.stride + j * W, s);
                if constexpr (OUTPUT) outputs[r][j] += row_q * s;
                if constexpr (R::READS) reads[r][j] += row_a * s;
            }
        }
    }
    for (int j = 0; j < NV; j++) {
        for (int r = 1; r < ROWS; r++) outputs[0][j] += outputs[r][j], reads[0][j] += reads[r][j];
        if constexpr (OUTPUT) o[j] = outputs[0][j];
        if constexpr (R::READS) u[j] = reads[0][j];
    }
}

}  // namespace helix::linear_attention
