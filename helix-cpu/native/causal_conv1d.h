// The parts of the short causal convolution that its two directions share: taps, inputs, blocks of work.

#pragma once

#include <vector>

#include "call.h"
#include "functions.h"
#include "interleave.h"
#include "parallel.h"
#include "sequences.h"

namespace helix {

constexpr int64_t TOKENS = 64;  // of a block of work
constexpr int64_t ROWS = 8;     // of them, walked at once

// The taps with channels side by side, oldest input first, and the bias behind them: rows of `stride` floats,
// zeros after the last channel. Turned, the newest input comes first.
struct Taps {
    int64_t width, stride;
    Scratch memory;
    const float* rows;

    Taps(const float* weight, const float* bias, int64_t d_model, int64_t n_taps, bool turned = false)
        : width(n_taps), stride(padded(d_model)), memory((n_taps + 1) * stride), rows(memory.get()) {
        float* to = memory.get();
        int64_t c = 0;
        for (; width == 4 && c + W <= d_model; c += W) fours(weight + c * 4, to + c, turned);
        for (; c < d_model; c++)
            for (int64_t k = 0; k < width; k++)
                to[(turned ? width - 1 - k : k) * stride + c] = weight[c * width + k];
        for (c = 0; c < d_model; c++) to[width * stride + c] = bias ? bias[c] : 0.0f;
        for (int64_t k = 0; k <= width; k++)
            std::fill(to + k * stride + d_model, to + (k + 1) * stride, 0.0f);
    }
    static int64_t padded(int64_t channels) { return (channels + W - 1) / W * W; }
    const float* at(int64_t k, int64_t c) const { return rows + k * stride + c; }
    const float* bias(int64_t c) const { return at(width, c); }

   private:
    // W channels of four taps, the usual number: a decoding step takes the taps apart for one token.
    void fours(const float* weight, float* to, bool turned) const {
        const Pair a = deinterleave(load(weight), load(weight + W));
        const Pair b = deinterleave(load(weight + 2 * W), load(weight + 3 * W));
        const Pair even = deinterleave(a.first, b.first), odd = deinterleave(a.second, b.second);
        const vf taps[4] = {even.first, odd.first, even.second, odd.second};
        for (int64_t k = 0; k < 4; k++) store(to + (turned ? 3 - k : k) * stride, taps[k]);
    }
};

// The K inputs of one output, oldest first. K = 0 stands for a width known at run time only: inputs are then
// read again for each output.
template <typename T, int K>
struct Window {
    vf x[K];
    int64_t c;
    int n;

    Window(const T* const* rows, int64_t channel, int lanes) : c(channel), n(lanes) {
        for (int k = 1; k < K; k++) x[k] = load(rows[k - 1] + c, n);
    }
    // Moves on to the inputs rows[0 .. K-1], of which it holds all but the last.
    void move(const T* const* rows) {
        for (int k = 1; k < K; k++) x[k - 1] = x[k];
        x[K - 1] = load(rows[K - 1] + c, n);
    }
    vf operator[](int64_t k) const { return x[k]; }
};

template <typename T>
struct Window<T, 0> {
    const T* const* rows;
    int64_t c;
    int n;

    Window(const T* const*, int64_t channel, int lanes) : rows(nullptr), c(channel), n(lanes) {}
    void move(const T* const* now) { rows = now; }
    vf operator[](int64_t k) const { return load(rows[k] + c, n); }
};

// The taps of a vector of channels.
template <int K>
struct Filter {
    vf tap[K];

    Filter(const Taps& taps, int64_t c) {
        for (int k = 0; k < K; k++) tap[k] = load(taps.at(k, c));
    }
    template <typename Inputs>
    vf convolve(vf sum, const Inputs& inputs) const {
        for (int k = 0; k < K; k++) sum += tap[k] * inputs[k];
        return sum;
    }
};

template <>
struct Filter<0> {
    const float* tap;
    int64_t stride, width;

    Filter(const Taps& taps, int64_t c) : tap(taps.at(0, c)), stride(taps.stride), width(taps.width) {}
    template <typename Inputs>
    vf convolve(vf sum, const Inputs& inputs) const {
        for (int64_t k = 0; k < width; k++) sum += load(tap + k * stride) * inputs[k];
        return sum;
    }
};

// What a vector of channels gives to the gradients of taps and bias: rows of sums as `Taps` lie, or null.
template <int K>
struct Sums {
    float* rows;
    int64_t stride;
    vf x[K + 1]{};

    Sums(float* sums, const Taps& taps) : rows(sums), stride(taps.stride) {}
    template <typename Inputs>
    void add(vf g, const Inputs& inputs) {
        for (int k = 0; k < K; k++) x[k] += g * inputs[k];
        x[K] += g;
    }
    void finish() {
        for (int k = 0; rows && k <= K; k++) store(rows + k * stride, load(rows + k * stride) + x[k]);
    }
};

template <>
struct Sums<0> {
    float* rows;
    int64_t stride, width;

    Sums(float* sums, const Taps& taps) : rows(sums), stride(taps.stride), width(taps.width) {}
    template <typename Inputs>
    void add(vf g, const Inputs& inputs) {
        if (!rows) return;
        for (int64_t k = 0; k < width; k++) store(rows + k * stride, load(rows + k * stride) + g * inputs[k]);
        store(rows + width * stride, load(rows + width * stride) + g);
    }
    void finish() {}
};

// Where the inputs of a call lie: those of each sequence, and before them its state.
template <typename T>
struct Inputs {
    Sequences sequences;
    Rows<const T> x;
    const T* state;
    int64_t d_model, n_before;

    template <typename Arguments>
    explicit Inputs(const Arguments& a)
        : sequences{a.bounds, a.n_sequences, a.seq_len},
          x{static_cast<const T*>(a.x), a.batch_stride, a.time_stride},
          state(static_cast<const T*>(a.state)),
          d_model(a.d_model),
          n_before(a.width - 1) {}

    // Input t of sequence i, t >= 1 - K, from channel c on.
    const T* at(int64_t i, int64_t t, int64_t c) const {
        if (t >= 0) return x.at(sequences, i, t) + c;
        return state ? state + ((i + 1) * n_before + t) * d_model + c : ZEROS<T>;
    }
    // Sets rows to the inputs from t - (K-1) to t + n - 1.
    void fill(std::vector<const T*>& rows, int64_t i, int64_t t, int64_t n, int64_t begin) const {
        for (int64_t r = 0; r < n + n_before; r++)
            rows[r] = at(i, t - n_before + r, begin);
    }
};

// Tokens first <= t < last, and `channels` of the channels from `begin` on.
struct Tile {
    int64_t first, last, begin, channels;
};

inline int64_t n_token_blocks(int64_t n_tokens) { return (n_tokens + TOKENS - 1) / TOKENS; }

// Cuts tokens and channels into blocks, which depend on their numbers alone, and calls f(tile) for each.
template <typename F>
void for_tiles(int64_t n_tokens, int64_t d_model, int64_t threads, const F& f) {
    const int64_t across = (d_model + MOST_CHANNELS - 1) / MOST_CHANNELS;
    for_blocks(n_token_blocks(n_tokens) * across, threads, [&](int64_t block) {
        const int64_t first = block / across * TOKENS, begin = block % across * MOST_CHANNELS;
        f(Tile{first, std::min(n_tokens, first + TOKENS), begin, std::min(MOST_CHANNELS, d_model - begin)});
    });
}

// Calls run(element, width), whose types tell the dtype and the number of taps, 0 for any.
template <typename Arguments, typename F>
void for_kind(const Arguments& a, const F& run) {
    const auto of_dtype = [&](auto x) {
        switch (a.width) {
            case 2: return run(x, std::integral_constant<int, 2>());
            case 3: return run(x, std::integral_constant<int, 3>());
            case 4: return run(x, std::integral_constant<int, 4>());
            default: return run(x, std::integral_constant<int, 0>());
        }
    };
    a.dtype ? of_dtype(bf16()) : of_dtype(float());
}

}  // namespace helix
