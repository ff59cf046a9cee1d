// The long convolution and its gradient by Fourier transforms, channel by channel.
//
// A block of channels is copied to rows, so that a transform reads along memory; results replace the rows and are
// copied back. Spectra of kernels are kept from one batch row to the next, and gradients of kernels are summed as
// spectra, in the order of the batch.

#pragma once

#include "call.h"
#include "channel_rows.h"
#include "fft.h"
#include "long_conv.h"
#include "parallel.h"

namespace helix {
namespace long_conv {

// A channel's kernel as the transforms meet it: before the first row its coefficients, after it the residues. The
// skip weight is one more kernel, of lag 0 only: it adds itself to all residues.
struct Kernel {
    float* spectrum;
    float skip;
    bool is_new;

    Complex residues(int64_t i) const {
        const Complex v = load_complex(spectrum + i * COMPLEX);
        return {v.re + skip, v.im};
    }
};

inline void read_kernel(const Plan& plan, const float* kernel, int64_t n_lags, float* spectrum) {
    read_signal<false>(plan, spectrum, [&](int64_t i) {
        return i * W < n_lags ? load(kernel + i * W, int(std::min(n_lags - i * W, int64_t(W)))) : vf{};
    });
}

// Row: `margin` zeros, the signal, zeros; gives y from its start on. A window's first outputs lack inputs.
template <bool TWO_HALVES>
void convolve_row(const Plan& plan, const Cut& cut, float* row, Kernel kernel, float* work) {
    const int64_t margin = cut.margin / W;
    for (int64_t s = 0; s < cut.n_segments; s++, row += cut.step, kernel.is_new = false) {
        read_signal<TWO_HALVES>(plan, work, [&](int64_t i) { return load(row + i * W); });
        run_below_top(plan, work, &kernel.spectrum, kernel.is_new,
                      [&](int64_t i, Complex v) { return multiply(v, kernel.residues(i)); });
        write_signal<TWO_HALVES>(plan, work, [&](int64_t i, vf y) {
            if (i >= margin) store(row + (i - margin) * W, y);
        });
    }
}

// Adds the correlation of x and grad to `sum`, which a new kernel begins, and puts that of grad and kernel in
// grad's place.
// Segments are of x; the window of grad reaches on as far as their outputs do.
template <bool TWO_HALVES>
void correlate_row(const Plan& plan, const Cut& cut, const float* x, float* grad, Kernel kernel, float* sum,
                   float* work) {
    float* const others[2] = {work, kernel.spectrum};
    float* grad_work = work + plan.n_vectors * COMPLEX;
    const int64_t inputs = cut.step / W;
    for (int64_t s = 0; s < cut.n_segments; s++, x += cut.step, grad += cut.step, kernel.is_new = false) {
        read_signal<TWO_HALVES>(plan, work, [&](int64_t i) { return i < inputs ? load(x + i * W) : vf{}; });
        read_signal<TWO_HALVES>(plan, grad_work, [&](int64_t i) { return load(grad + i * W); });
        run_below_top(plan, grad_work, others, kernel.is_new ? 2 : 1, [&](int64_t i, Complex v) {
            Complex product = multiply_conjugate(v, load_complex(work + i * COMPLEX));
            if (!kernel.is_new) {
                const Complex before = load_complex(sum + i * COMPLEX);
                product = {before.re + product.re, before.im + product.im};
            }
            store_complex(sum + i * COMPLEX, product);
            return multiply_conjugate(v, kernel.residues(i));
        });
        write_signal<TWO_HALVES>(plan, grad_work, [&](int64_t i, vf y) {
            if (i < inputs) store(grad + i * W, y);
        });
    }
}

// The lags of the kernel's gradient, from the sum of spectra.
inline void write_grad_kernel(const Plan& plan, float* sum, float* grad_kernel, int64_t n_lags) {
    restore_below_top(plan, sum);
    write_signal<false>(plan, sum, [&](int64_t i, vf lags) {
        if (i * W < n_lags) store(grad_kernel + i * W, lags, int(std::min(n_lags - i * W, int64_t(W))));
    });
}

// Sum of products, in parts of 64 vectors each, so that rounding errors of a long row do not add up.
inline float dot(const float* a, const float* b, int64_t n) {
    vf total{};
    for (int64_t start = 0; start < n; start += 64 * W) {
        vf part{};
        const int64_t end = std::min(n, start + 64 * W);
        for (int64_t t = start; t < end; t += W) part += load(a + t) * load(b + t);
        total += part;
    }
    return sum(total);
}

// Memory that a thread keeps from block to block, and what of it belongs to which channel. Spectra are kept for each
// channel where there are several batch rows.
class Memory {
   public:
    Memory(const Plan& plan, const Cut& cut, int64_t channels, int64_t batch_size, int rows, int works, int spectra)
        : pitch(row_pitch(cut.row())),
          spectrum_(plan.n_vectors * COMPLEX),
          kept_(batch_size > 1 ? spectrum_ : 0),
          channels_(channels),
          rows_(rows * channels * pitch),
          works_(works * spectrum_),
          spectra_(spectra * (spectrum_ + (channels - 1) * kept_)) {}

    const int64_t pitch;
    float* row(int kind, int64_t channel) { return rows_.get() + (kind * channels_ + channel) * pitch; }
    float* work() { return works_.get(); }
    float* spectrum(int kind, int64_t channel) {
        return spectra_.get() + kind * (spectrum_ + (channels_ - 1) * kept_) + channel * kept_;
    }

   private:
    int64_t spectrum_, kept_, channels_;
    Scratch rows_, works_, spectra_;
};

// Calls run(memory, first channel, number of channels) for each block of channels; make() gives a thread's memory.
template <typename Make, typename Run>
void for_channel_blocks(int64_t d_model, int64_t threads, const Make& make, const Run& run) {
    const int64_t channels = channels_of_block(d_model), n_blocks = (d_model + channels - 1) / channels;
    std::atomic<int64_t> next{0};
    for_blocks(std::min(threads, n_blocks), threads, [&](int64_t) {
        Memory memory = make(channels);
        for (int64_t first; (first = next.fetch_add(channels)) < d_model;)
            run(memory, first, int(std::min(channels, d_model - first)));
    });
}

template <typename T, bool TWO_HALVES>
void forward_by_fft(const Forward& a, const Cut& cut, int64_t threads) {
    const auto plan = plan_for(cut.n_vectors);
    const auto make = [&](int64_t channels) { return Memory(*plan, cut, channels, a.batch_size, 1, 1, 1); };
    for_channel_blocks(a.d_model, threads, make, [&](Memory& memory, int64_t first, int n) {
        for (int64_t b = 0; b < a.batch_size; b++) {
            for (int c = 0; c < n; c++) std::fill_n(memory.row(0, c), cut.margin, 0.0f);
            copy_to_rows(static_cast<const T*>(a.x) + b * a.x_batch_stride + first, a.x_time_stride, a.seq_len, n,
                         memory.row(0, 0) + cut.margin, memory.pitch, cut.row() - cut.margin);
            for (int c = 0; c < n; c++) {
                const Kernel kernel{memory.spectrum(0, c), a.skip ? a.skip[first + c] : 0.0f, b == 0};
                if (b == 0) read_kernel(*plan, a.kernel + (first + c) * a.kernel_stride, a.n_lags, kernel.spectrum);
                convolve_row<TWO_HALVES>(*plan, cut, memory.row(0, c), kernel, memory.work());
            }
            copy_from_rows(memory.row(0, 0), memory.pitch, a.seq_len, n,
                           static_cast<T*>(a.y) + b * a.seq_len * a.d_model + first, a.d_model);
        }
    });
}

template <typename T, bool TWO_HALVES>
void backward_by_fft(const Backward& a, const Cut& cut, int64_t threads) {
    const auto plan = plan_for(cut.n_vectors);
    const auto make = [&](int64_t channels) { return Memory(*plan, cut, channels, a.batch_size, 2, 2, 2); };
    for_channel_blocks(a.d_model, threads, make, [&](Memory& memory, int64_t first, int n) {
        for (int64_t b = 0; b < a.batch_size; b++) {
            copy_to_rows(static_cast<const T*>(a.x) + b * a.x_batch_stride + first, a.x_time_stride, a.seq_len, n,
                         memory.row(0, 0), memory.pitch, cut.row());
            copy_to_rows(static_cast<const T*>(a.grad_y) + b * a.grad_batch_stride + first, a.grad_time_stride,
                         a.seq_len, n, memory.row(1, 0), memory.pitch, cut.row());
            for (int c = 0; c < n; c++) {
                const int64_t channel = first + c;
                const Kernel kernel{memory.spectrum(0, c), a.skip ? a.skip[channel] : 0.0f, b == 0};
                float *x = memory.row(0, c), *grad = memory.row(1, c), *sum = memory.spectrum(1, c);
                if (a.grad_skip) a.grad_skip[channel] = dot(x, grad, cut.row()) + (b ? a.grad_skip[channel] : 0.0f);
                if (b == 0) read_kernel(*plan, a.kernel + channel * a.kernel_stride, a.n_lags, kernel.spectrum);
                correlate_row<TWO_HALVES>(*plan, cut, x, grad, kernel, sum, memory.work());
                if (b == a.batch_size - 1)
                    write_grad_kernel(*plan, sum, a.grad_kernel + channel * a.grad_kernel_stride, a.n_lags);
            }
            copy_from_rows(memory.row(1, 0), memory.pitch, a.seq_len, n,
                           static_cast<T*>(a.grad_x) + b * a.seq_len * a.d_model + first, a.d_model);
        }
    });
}

}  // namespace long_conv
}  // namespace helix
