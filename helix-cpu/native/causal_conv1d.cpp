// Short causal convolution along time, channel by channel, with SiLU after it, and its gradient.
//
// A block of work is some tokens by some channels. It is walked a few tokens at a time, all its channels for
// each few, so that memory is read in long runs; the inputs that an output needs stay in registers.

#include "causal_conv1d.h"

#include "parallel.h"

namespace helix {
namespace {

struct Forward {
    const void* x;          // (B, L, D)
    const float* weight;    // (D, K)
    const float* bias;      // (D) or null
    const void* state;      // (n, K-1, D) or null
    const int64_t* bounds;  // (n + 1) or null
    void* y;                // (B, L, D)
    void* final_state;      // (n, K-1, D)
    int64_t n_sequences, seq_len, d_model, width, batch_stride, time_stride, silu, dtype;
};

struct Backward {
    const void* x;
    const float* weight;
    const float* bias;
    const void* state;
    const int64_t* bounds;
    const void* grad_y;       // (B, L, D) or null
    const float* grad_final;  // (n, K-1, D) or null
    void* grad_x;             // (B, L, D)
    float* grad_weight;       // (D, K)
    float* grad_bias;         // (D)
    void* grad_state;         // (n, K-1, D) or null
    int64_t n_sequences, seq_len, d_model, width, batch_stride, time_stride, silu, dtype;
    int64_t grad_batch_stride, grad_time_stride;
};

// The last K - 1 inputs of some sequences, which `tile` counts in place of tokens.
template <typename T>
void final_states(const Inputs<T>& inputs, const Tile& tile, T* final_state) {
    for (int64_t i = tile.first; i < tile.last; i++)
        for (int64_t r = 0; r < inputs.n_before; r++) {
            const T* row = inputs.at(i, inputs.sequences.size(i) - inputs.n_before + r, tile.begin);
            T* to = final_state + (i * inputs.n_before + r) * inputs.d_model + tile.begin;
            std::copy(row, row + tile.channels, to);
        }
}

// The outputs of a few tokens, `stride` apart, of the inputs from K - 1 tokens before them. Memory is asked for
// what the next few tokens read and write, `ahead` elements from the last input of each.
template <typename T, int K>
inline void convolve(const T* const* in, T* out, int64_t rows, int64_t stride, int64_t ahead, bool with_silu,
                     const Taps& taps, const Tile& tile) {
    for_lanes(tile.channels, [=, &taps, &tile](int64_t c, auto n) {
        const Filter<K> filter(taps, tile.begin + c);
        const vf bias = load(taps.bias(tile.begin + c));
        Window<T, K> window(in, c, n);
        if (rows == ROWS) {
            vf y[ROWS];
            for (int r = 0; r < ROWS; r++) {
                window.move(in + r);
                __builtin_prefetch(in[r + taps.width - 1] + ahead + c);
                __builtin_prefetch(out + (r + ROWS) * stride + c, 1);
                y[r] = filter.convolve(bias, window);
            }
            if (with_silu) silu_each(y);
            for (int r = 0; r < ROWS; r++) store(out + r * stride + c, y[r], n);
            return;
        }
        for (int64_t r = 0; r < rows; r++) {
            window.move(in + r);
            vf y = filter.convolve(bias, window);
            store(out + r * stride + c, with_silu ? silu(y) : y, n);
        }
    });
}

template <typename T, int K>
void forward(const Forward& a, int64_t threads) {
    const Inputs<T> inputs(a);
    const Taps taps(a.weight, a.bias, a.d_model, a.width);
    for_tiles(a.n_sequences, a.d_model, threads,
              [&](const Tile& tile) { final_states(inputs, tile, static_cast<T*>(a.final_state)); });
    for_tiles(inputs.sequences.n_tokens(), a.d_model, threads, [&](const Tile& tile) {
        std::vector<const T*> in(ROWS + a.width - 1);
        inputs.sequences.for_parts(tile.first, tile.last, [&](int64_t i, int64_t t0, int64_t t1) {
            T* out = static_cast<T*>(a.y) + (inputs.sequences.start(i) + t0) * a.d_model + tile.begin;
            for (int64_t t = t0; t < t1; t += ROWS, out += ROWS * a.d_model) {
                inputs.fill(in, i, t, std::min(ROWS, t1 - t), tile.begin);
                convolve<T, K>(in.data(), out, std::min(ROWS, t1 - t), a.d_model, ROWS * a.time_stride, a.silu,
                               taps, tile);
            }
        });
    });
}

// The gradient of one block of work. With g the gradient before the activation, that of input t is
// sum over k of w_k g_{t+K-1-k}: the same convolution of g, with the taps turned round. g is kept for as few
// tokens as that needs.
template <typename T, int K>
class Gradient {
   public:
    Gradient(const Backward& a, const Inputs<T>& inputs, const Taps& taps, const Taps& turned,
             const Tile& tile)
        : a_(a),
          inputs_(inputs),
          taps_(taps),
          turned_(turned),
          tile_(tile),
          n_kept_(ROWS + inputs.n_before),
          kept_stride_(Taps::padded(tile.channels)),
          kept_(n_kept_ * kept_stride_),
          in_(n_kept_),
          given_(ROWS),
          keep_(ROWS),
          grads_(n_kept_ + inputs.n_before),
          finals_(n_kept_),
          out_(n_kept_) {}

    // Writes the gradient of inputs t0 <= t < t1 of sequence i, those before time 0 being its state, and adds
    // to sums what these tokens give to the taps and the bias.
    void part(int64_t i, int64_t t0, int64_t t1, float* sums) {
        const int64_t before = inputs_.n_before, from = std::max(t0, int64_t(0));
        const int64_t end = std::max(from, std::min(t1 + before, inputs_.sequences.size(i)));
        int64_t t = from, done = t0;
        while (done < t1) {
            const bool own = t < t1;
            const int64_t rows = std::min(ROWS, (own ? t1 : end) - t);
            keep(i, t, rows, own ? sums : nullptr);
            t += rows;
            const int64_t ready = t == end ? t1 : std::max(done, t - before);
            write(i, done, ready, from, end);
            done = ready;
        }
    }

   private:
    float* kept(int64_t t) { return kept_.get() + t % n_kept_ * kept_stride_; }

    // Keeps g of tokens t <= u < t + rows.
    void keep(int64_t i, int64_t t, int64_t rows, float* sums) {
        const auto* data = static_cast<const T*>(a_.grad_y);
        const Rows<const T> grad_y{data, a_.grad_batch_stride, a_.grad_time_stride};
        inputs_.fill(in_, i, t, rows, tile_.begin);
        for (int64_t r = 0; r < rows; r++) {
            given_[r] = data ? grad_y.at(inputs_.sequences, i, t + r) + tile_.begin : ZEROS<T>;
            keep_[r] = kept(t + r);
        }
        const T *const *in = in_.data(), *const *given = given_.data();
        float* const* to = keep_.data();
        const bool with_silu = a_.silu;
        for_lanes(tile_.channels, [=](int64_t c, auto n) {
            const Filter<K> filter(taps_, tile_.begin + c);
            const vf bias = load(taps_.bias(tile_.begin + c));
            Window<T, K> window(in, c, n);
            Sums<K> sum(sums ? sums + tile_.begin + c : nullptr, taps_);
            for (int64_t r = 0; r < rows; r++) {
                window.move(in + r);
                vf g = load(given[r] + c, n);
                if (with_silu) {
                    const vf y = filter.convolve(bias, window);
                    g *= silu_slope(y, sigmoid(y));
                }
                store(to[r] + c, g);
                sum.add(g, window);
            }
            sum.finish();
        });
    }

    // Writes the gradients of inputs first <= t < last; g is kept for from <= t < end, and zero elsewhere.
    void write(int64_t i, int64_t first, int64_t last, int64_t from, int64_t end) {
        const int64_t before = inputs_.n_before, rows = last - first;
        for (int64_t r = 0; r < rows + before; r++)
            grads_[r] = first + r < from || first + r >= end ? ZEROS<float> : kept(first + r);
        for (int64_t r = 0; r < rows; r++) {
            finals_[r] = final_row(i, first + r - inputs_.sequences.size(i) + before);
            out_[r] = out_row(i, first + r);
        }
        const float *const *grads = grads_.data(), *const *finals = finals_.data();
        T* const* out = out_.data();
        for_lanes(tile_.channels, [=](int64_t c, auto n) {
            const Filter<K> filter(turned_, tile_.begin + c);
            Window<float, K> window(grads, c, W);
            for (int64_t r = 0; r < rows; r++) {
                window.move(grads + r);
                store(out[r] + c, filter.convolve(load(finals[r] + c, n), window), n);
            }
        });
    }

    // The gradient that comes through row r of the final state; a row before the first stands for none.
    const float* final_row(int64_t i, int64_t r) const {
        if (r < 0 || !a_.grad_final) return ZEROS<float>;
        return a_.grad_final + (i * inputs_.n_before + r) * a_.d_model + tile_.begin;
    }
    T* out_row(int64_t i, int64_t t) const {
        T* row = t >= 0 ? static_cast<T*>(a_.grad_x) + (inputs_.sequences.start(i) + t) * a_.d_model
                        : static_cast<T*>(a_.grad_state) + ((i + 1) * inputs_.n_before + t) * a_.d_model;
        return row + tile_.begin;
    }

    const Backward& a_;
    const Inputs<T>& inputs_;
    const Taps &taps_, &turned_;
    const Tile& tile_;
    int64_t n_kept_, kept_stride_;
    Scratch kept_;
    std::vector<const T*> in_, given_;
    std::vector<float*> keep_;
    std::vector<const float*> grads_, finals_;
    std::vector<T*> out_;
};

// Adds up the blocks' sums (P, K+1, stride), in the order of their tokens.
void add_sums(const Backward& a, const Taps& taps, const float* sums, int64_t n_blocks) {
    for (int64_t k = 0; k <= a.width; k++)
        for_lanes(a.d_model, [&](int64_t c, int n) {
            vf total{};
            for (int64_t i = 0; i < n_blocks; i++)
                total += load(sums + (i * (a.width + 1) + k) * taps.stride + c);
            for (int j = 0; j < n; j++)
                *(k < a.width ? a.grad_weight + (c + j) * a.width + k : a.grad_bias + c + j) = total[j];
        });
}

template <typename T, int K>
void backward(const Backward& a, int64_t threads) {
    const Inputs<T> inputs(a);
    const Taps taps(a.weight, a.bias, a.d_model, a.width);
    const Taps turned(a.weight, nullptr, a.d_model, a.width, true);
    const int64_t n_tokens = inputs.sequences.n_tokens(), n_sums = (a.width + 1) * taps.stride;
    Scratch sums(n_token_blocks(n_tokens) * n_sums);
    for_tiles(n_tokens, a.d_model, threads, [&](const Tile& tile) {
        float* own = sums.get() + tile.first / TOKENS * n_sums;
        for (int64_t k = 0; k <= a.width; k++)
            std::memset(own + k * taps.stride + tile.begin, 0, Taps::padded(tile.channels) * sizeof(float));
        Gradient<T, K> gradient(a, inputs, taps, turned, tile);
        inputs.sequences.for_parts(
            tile.first, tile.last, [&](int64_t i, int64_t t0, int64_t t1) { gradient.part(i, t0, t1, own); });
    });
    add_sums(a, taps, sums.get(), n_token_blocks(n_tokens));
    if (!a.grad_state) return;
    for_tiles(a.n_sequences, a.d_model, threads, [&](const Tile& tile) {
        Gradient<T, K> gradient(a, inputs, taps, turned, tile);
        for (int64_t i = tile.first; i < tile.last; i++) gradient.part(i, -inputs.n_before, 0, nullptr);
    });
}

void run_forward(const Forward& a, int64_t threads) {
    for_kind(a, [&](auto x, auto width) { forward<decltype(x), width>(a, threads); });
}

void run_backward(const Backward& a, int64_t threads) {
    for_kind(a, [&](auto x, auto width) { backward<decltype(x), width>(a, threads); });
}

}  // namespace
}  // namespace helix

HELIX_KERNEL(causal_conv1d, helix::Forward, helix::run_forward)
HELIX_KERNEL(causal_conv1d_backward, helix::Backward, helix::run_backward)
