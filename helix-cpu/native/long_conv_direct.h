// The long convolution and its gradient without a transform, for few lags or steps: channels in the lanes.

#pragma once

#include "call.h"
#include "channel_rows.h"
#include "long_conv.h"
#include "parallel.h"

namespace helix {
namespace long_conv {

constexpr int64_t CHUNK = 256;  // steps that are copied together, so that those of a block lie side by side

constexpr int TILE = W == 16 ? 12 : 8;  // sums in registers, of which there are 32 or 16

// Calls f(i, n) with n = TILE, 4 or 1 for parts i..i + n of `count`; n is a constant.
template <typename F>
inline void for_tiles(int64_t count, const F& f) {
    int64_t i = 0;
    for (; i + TILE <= count; i += TILE) f(i, std::integral_constant<int, TILE>());
    for (; i + 4 <= count; i += 4) f(i, std::integral_constant<int, 4>());
    for (; i < count; i++) f(i, std::integral_constant<int, 1>());
}

// Sums over n of a_n b_{n SIGN + i} for N numbers i that follow one another.
template <int N, int SIGN>
inline void sum_products(const float* a, const float* b, int64_t n_terms, vf* sums) {
    for (int64_t n = 0; n < n_terms; n++) {
        const vf factor = load(a + n * W);
        for (int i = 0; i < N; i++) sums[i] += factor * load(b + (i + SIGN * n) * W);
    }
}

// Copies steps [from, to) of W channels; those outside the sequence are zero.
template <typename T>
inline void copy_steps(const T* x, int64_t stride, int64_t seq_len, int lanes, int64_t from, int64_t to, float* out) {
    for (int64_t t = from; t < to; t++, out += W)
        store(out, t >= 0 && t < seq_len ? load(x + t * stride, lanes) : vf{});
}

// Taps (K, W), the skip weight in lag 0.
inline void copy_taps(const float* kernel, int64_t stride, int64_t n_lags, const float* skip, int lanes, float* taps) {
    std::fill_n(taps, n_lags * W, 0.0f);
    copy_from_rows(kernel, stride, n_lags, lanes, taps, W);
    if (skip) store(taps, load(taps) + load(skip, lanes));
}

template <typename T>
void forward_directly(const Forward& a, int64_t threads) {
    const int64_t n_blocks = (a.d_model + W - 1) / W;
    for_blocks(n_blocks * a.batch_size, threads, [&](int64_t item) {
        const int64_t first = item % n_blocks * W, b = item / n_blocks;
        const int lanes = int(std::min(int64_t(W), a.d_model - first));
        const T* x = static_cast<const T*>(a.x) + b * a.x_batch_stride + first;
        T* y = static_cast<T*>(a.y) + b * a.seq_len * a.d_model + first;
        Scratch taps(a.n_lags * W), steps((a.n_lags - 1 + std::min(CHUNK, a.seq_len)) * W);
        copy_taps(a.kernel + first * a.kernel_stride, a.kernel_stride, a.n_lags, a.skip ? a.skip + first : nullptr,
                  lanes, taps.get());
        for (int64_t start = 0; start < a.seq_len; start += CHUNK) {
            const int64_t end = std::min(a.seq_len, start + CHUNK);
            copy_steps(x, a.x_time_stride, a.seq_len, lanes, start - a.n_lags + 1, end, steps.get());
            for_tiles(end - start, [&](int64_t t, auto n) {
                vf sums[n.value] = {};
                const int64_t reach = std::min(a.n_lags, start + t + n.value);  // no step lies before the first
                sum_products<n.value, -1>(taps.get(), steps.get() + (a.n_lags - 1 + t) * W, reach, sums);
                for (int i = 0; i < n.value; i++) store(y + (start + t + i) * a.d_model, sums[i], lanes);
            });
        }
    });
}

// Adds the products of the gradients of steps [start, end) with the steps before them to the gradients of taps
// (K, W). Lags fall from tile to tile and within one, so that the steps that they meet rise.
inline void add_grad_taps(const float* x, const float* grad, int64_t start, int64_t end, int64_t n_lags,
                          float* grad_taps) {
    for_tiles(n_lags, [&](int64_t i, auto n) {
        vf sums[n.value] = {};
        const int64_t lag = n_lags - 1 - i;
        const int64_t first = std::clamp(lag - n.value + 1 - start, int64_t(0), end - start);  // the first to meet x
        sum_products<n.value, 1>(grad + first * W, x + (i + first) * W, end - start - first, sums);
        for (int k = 0; k < n.value; k++) {
            float* tap = grad_taps + (lag - k) * W;
            store(tap, load(tap) + sums[k]);
        }
    });
}

template <typename T>
void backward_directly(const Backward& a, int64_t threads) {
    const int64_t history = a.n_lags - 1, span = history + std::min(CHUNK, a.seq_len);
    for_blocks((a.d_model + W - 1) / W, threads, [&](int64_t block) {
        const int64_t first = block * W;
        const int lanes = int(std::min(int64_t(W), a.d_model - first));
        Scratch taps(a.n_lags * W), grad_taps(a.n_lags * W), steps(span * W), grads(span * W);
        copy_taps(a.kernel + first * a.kernel_stride, a.kernel_stride, a.n_lags, a.skip ? a.skip + first : nullptr,
                  lanes, taps.get());
        std::fill_n(grad_taps.get(), a.n_lags * W, 0.0f);
        for (int64_t part = 0; part < a.batch_size * ((a.seq_len + CHUNK - 1) / CHUNK); part++) {
            const int64_t b = part % a.batch_size, start = part / a.batch_size * CHUNK;
            const int64_t end = std::min(a.seq_len, start + CHUNK);
            copy_steps(static_cast<const T*>(a.x) + b * a.x_batch_stride + first, a.x_time_stride, a.seq_len, lanes,
                       start - history, end, steps.get());
            copy_steps(static_cast<const T*>(a.grad_y) + b * a.grad_batch_stride + first, a.grad_time_stride,
                       a.seq_len, lanes, start, end + history, grads.get());
            add_grad_taps(steps.get(), grads.get(), start, end, a.n_lags, grad_taps.get());
            T* grad_x = static_cast<T*>(a.grad_x) + (b * a.seq_len + start) * a.d_model + first;
            for_tiles(end - start, [&](int64_t t, auto n) {
                vf sums[n.value] = {};
                const int64_t reach = std::min(a.n_lags, a.seq_len - start - t);
                sum_products<n.value, 1>(taps.get(), grads.get() + t * W, reach, sums);
                for (int i = 0; i < n.value; i++) store(grad_x + (t + i) * a.d_model, sums[i], lanes);
            });
        }
        if (a.grad_skip) store(a.grad_skip + first, load(grad_taps.get()), lanes);
        for (int c = 0; c < lanes; c++)
            for (int64_t lag = 0; lag < a.n_lags; lag++)
                a.grad_kernel[(first + c) * a.grad_kernel_stride + lag] = grad_taps.get()[lag * W + c];
    });
}

}  // namespace long_conv
}  // namespace helix
