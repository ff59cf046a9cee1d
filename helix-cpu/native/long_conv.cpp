// Causal convolution with a kernel as long as the sequence: by Fourier transforms, or directly where that is less.

#include "long_conv.h"

#include <cmath>

#include "long_conv_direct.h"
#include "long_conv_fft.h"

namespace helix {
namespace long_conv {
namespace {

// What a transform takes for n (log2 n + 8), and copying a step to its row and back, in multiply-adds of the direct
// form: measured, and constants, so that the form depends on shapes only.
constexpr double TRANSFORM = 4.2, COPY = 12;

double transform_cost(int64_t n) { return TRANSFORM * double(n) * (std::log2(double(n)) + 8); }

int64_t round_up(int64_t n) { return (n + W - 1) / W * W; }

}  // namespace

Cut best_cut(int64_t seq_len, int64_t n_lags, int64_t batch_size, double* cost) {
    Cut best{};
    *cost = HUGE_VAL;
    const auto consider = [&](const Cut& cut) {
        const double transforms = 2 * double(cut.n_segments) + 1 / double(batch_size);
        const double total = transforms * transform_cost(cut.n_vectors * W) + COPY * double(seq_len);
        if (total >= *cost) return;
        *cost = total;
        best = cut;
    };
    const int64_t margin = round_up(n_lags - 1);
    for (int64_t scale = 1; best.n_vectors == 0 || scale * 4 * W < 2 * seq_len; scale *= 2)
        for (int64_t n_vectors = 4 * scale; n_vectors < 8 * scale; n_vectors += scale) {
            if (!Plan::exists(n_vectors)) continue;
            const int64_t n = n_vectors * W;
            if (2 * n >= seq_len + n_lags - 1)
                consider({n_vectors, 1, 2 * n, 0, seq_len > n});
            else if (n >= margin + W)
                consider({n_vectors, (seq_len + 2 * n - margin - 1) / (2 * n - margin), 2 * n - margin, margin, true});
        }
    return best;
}

namespace {

template <typename T>
void forward(const Forward& a, int64_t threads) {
    double cost;
    const Cut cut = best_cut(a.seq_len, a.n_lags, a.batch_size, &cost);
    if (direct_cost(a.seq_len, a.n_lags) <= cost) return forward_directly<T>(a, threads);
    cut.two_halves ? forward_by_fft<T, true>(a, cut, threads) : forward_by_fft<T, false>(a, cut, threads);
}

template <typename T>
void backward(const Backward& a, int64_t threads) {
    double cost;
    const Cut cut = best_cut(a.seq_len, a.n_lags, a.batch_size, &cost);
    if (direct_cost(a.seq_len, a.n_lags) <= cost) return backward_directly<T>(a, threads);
    cut.two_halves ? backward_by_fft<T, true>(a, cut, threads) : backward_by_fft<T, false>(a, cut, threads);
}

void run_forward(const Forward& a, int64_t threads) {
    a.dtype ? forward<bf16>(a, threads) : forward<float>(a, threads);
}

void run_backward(const Backward& a, int64_t threads) {
    a.dtype ? backward<bf16>(a, threads) : backward<float>(a, threads);
}

}  // namespace
}  // namespace long_conv
}  // namespace helix

HELIX_KERNEL(long_conv, helix::long_conv::Forward, helix::long_conv::run_forward)
HELIX_KERNEL(long_conv_backward, helix::long_conv::Backward, helix::long_conv::run_backward)
