// The forward pass of a rule, a tile of columns of one head of one sequence at a time.

#pragma once

#include "linear_attention.h"

namespace helix::linear_attention {

struct Forward {
    Inputs in;
    void* o;             // (B, L, H, V)
    float* final_state;  // (N, H, K, V)
    double scale;
};

// Tokens staged at a time: with the tile of S they fit into the first-level cache.
constexpr int64_t FORWARD_CHUNK = 8;

// Calls for n numbers, to be read or (WRITTEN) written, of a later token: like the staged rows, they lie too far
// from the ones before. Where there is no such token, nothing happens.
template <int WRITTEN, typename T>
inline void ask_for(const T* columns, int64_t n) {
    for (int64_t i = 0; i < n; i += 64 / int64_t(sizeof(T))) __builtin_prefetch(columns + i, WRITTEN);
}

template <typename R, int NV, typename T>
void forward_tile(const Forward& a, int64_t sequence, int64_t head, int64_t column) {
    const Inputs& in = a.in;
    const Span span = span_of(in, sequence);
    const int64_t k_padded = round_up(in.k_dim, W), width = std::min<int64_t>(in.v_dim - column, NV * W);
    const int64_t offset = (sequence * in.n_heads + head) * in.k_dim * in.v_dim + column;
    Scratch scratch(k_padded * NV * W + Staged<R>::size(FORWARD_CHUNK, k_padded));
    const Place state{scratch.get(), NV * W};
    const Staged<R> tokens(state.data + k_padded * NV * W, FORWARD_CHUNK, k_padded);

    load_state<NV>(state.data, in.initial_state ? in.initial_state + offset : nullptr, in.k_dim, in.v_dim, width,
                   k_padded);
    for (int64_t start = 0; start < span.length; start += FORWARD_CHUNK) {
        const int64_t n = std::min(FORWARD_CHUNK, span.length - start);
        tokens.template fill<T>(in, span, head, start, n, FORWARD_CHUNK, float(a.scale));
        vf u[NV], v[NV], x[NV], o[NV];
        if constexpr (R::READS) read<NV>(u, state.data, state.stride, tokens.row(0, R::A), k_padded);
        for (int64_t t = 0; t < n; t++) {
            const int64_t token = span.start + start + t;
            const int64_t place = (span.batch * in.seq_len + token) * in.n_heads + head;
            const T* values = in.v.at<T>(span.batch, token, head) + column;
            T* outputs = static_cast<T*>(a.o) + place * in.v_dim + column;
            ask_for<0>(values + FORWARD_CHUNK * in.v.token_stride, width);
            ask_for<1>(outputs + FORWARD_CHUNK * in.n_heads * in.v_dim, width);
            load_columns<NV>(v, values, width);
            written<R, NV>(x, v, u, in.beta ? in.beta[place] : 1.0f, tokens.decays[t]);
            step<R, NV, true>(state, state, tokens, t, tokens.row(std::min(t + 1, n - 1), R::A), x, u, o);
            store_columns<NV>(outputs, o, width);
        }
    }
    store_state<NV>(a.final_state + offset, state.data, in.k_dim, in.v_dim, width);
}

template <typename R, typename T>
void forward(const Forward& a, int64_t threads) {
    constexpr int64_t TILE = MAX_VECTORS * W;
    const int64_t n_tiles = round_up(a.in.v_dim, TILE) / TILE;
    for_blocks(a.in.n_sequences * a.in.n_heads * n_tiles, threads, [&](int64_t block) {
        const int64_t column = block % n_tiles * TILE, head = block / n_tiles % a.in.n_heads;
        const int64_t sequence = block / n_tiles / a.in.n_heads;
        with_vectors(a.in.v_dim - column, [&](auto nv) { forward_tile<R, nv(), T>(a, sequence, head, column); });
    });
}

template <typename R>
void run_forward(const Forward& a, int64_t threads) {
    a.in.dtype ? forward<R, bf16>(a, threads) : forward<R, float>(a, threads);
}

}  // namespace helix::linear_attention
