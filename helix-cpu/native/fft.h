// Fourier transforms of real signals by a plan: there, something done to the residues, and back, depth first.

#pragma once

#include <type_traits>

#include "fft_leaf.h"

namespace helix {

constexpr int64_t IN_L1 = 128;  // vectors that go through all levels below without leaving the L1 cache
static_assert(IN_L1 >= 4 * W, "so that a pass of radix 8 leaves whole leaves");

template <int R, bool INVERSE>
void run_pass(const Pass& pass, float* data, int64_t first, int64_t count) {
    const int64_t child = pass.child;
    const float* twiddles = pass.twiddles.data() + first * 2 * R;
    for (; count > 0; count--, data += R * child * COMPLEX, twiddles += 2 * R) {
        Complex w[R];
        for (int k = 0; k < R; k++) w[k] = {splat(twiddles[2 * k]), splat(twiddles[2 * k + 1])};
        for (int64_t j = 0; j < child; j++) {
            Complex v[R];
            for (int k = 0; k < R; k++) v[k] = load_complex(data + (k * child + j) * COMPLEX);
            INVERSE ? restore<R>(v, w) : reduce<R>(v, w);
            for (int k = 0; k < R; k++) store_complex(data + (k * child + j) * COMPLEX, v[k]);
        }
    }
}

// The pass over `count` moduli that lie side by side, `first` being the number of the first one.
template <bool INVERSE>
void run_pass(const Pass& pass, float* data, int64_t first, int64_t count) {
    if (pass.radix == 8)
        run_pass<8, INVERSE>(pass, data, first, count);
    else
        run_pass<4, INVERSE>(pass, data, first, count);
}

// The transform of `data` below the top, what f makes of its residues, and the way back; and the transforms of
// `others`, there only. All go side by side and depth first, so that f finds everyone's residues in the L1 cache.
template <typename F>
struct Descent {
    const Plan& plan;
    float* data;
    float* const* others;
    int n_others;
    const F& f;

    void run() const {
        if (plan.n_vectors <= IN_L1) return run_in_l1(0, 0, plan.top);
        for (int64_t i = 0; i < plan.top; i++) run_modulus(0, i);
    }

   private:
    void run_modulus(size_t pass, int64_t number) const {
        if (plan.size(pass) <= IN_L1) return run_in_l1(pass, number, 1);
        const Pass& here = plan.passes[pass];
        const int64_t start = number * plan.size(pass) * COMPLEX;
        for (int i = 0; i < n_others; i++) run_pass<false>(here, others[i] + start, number, 1);
        run_pass<false>(here, data + start, number, 1);
        for (int64_t k = 0; k < here.radix; k++) run_modulus(pass + 1, number * here.radix + k);
        run_pass<true>(here, data + start, number, 1);
    }

    void run_in_l1(size_t pass, int64_t first, int64_t count) const {
        const int64_t start = first * plan.size(pass), n_vectors = count * plan.size(pass);
        for (int i = 0; i < n_others; i++) {
            reduce_in_l1(others[i] + start * COMPLEX, pass, start, n_vectors);
            for (int64_t v = 0; v < n_vectors; v += W)
                run_leaf<false>(plan, others[i] + (start + v) * COMPLEX, start + v, [](int64_t, Complex r) { return r; });
        }
        reduce_in_l1(data + start * COMPLEX, pass, start, n_vectors);
        for (int64_t v = 0; v < n_vectors; v += W)
            run_leaf<true>(plan, data + (start + v) * COMPLEX, start + v, f);
        for (size_t i = plan.passes.size(); i-- > pass;)
            run_pass<true>(plan.passes[i], data + start * COMPLEX, start / plan.size(i), n_vectors / plan.size(i));
    }

    void reduce_in_l1(float* signal, size_t pass, int64_t start, int64_t n_vectors) const {
        for (size_t i = pass; i < plan.passes.size(); i++)
            run_pass<false>(plan.passes[i], signal, start / plan.size(i), n_vectors / plan.size(i));
    }
};

template <typename F>
void run_below_top(const Plan& plan, float* data, float* const* others, int n_others, const F& f) {
    Descent<F>{plan, data, others, n_others, f}.run();
}

// From residues to what `write_signal` takes.
inline void restore_below_top(const Plan& plan, float* data) {
    for (int64_t v = 0; v < plan.n_vectors; v += W) restore_leaf(plan, data + v * COMPLEX, v);
    for (size_t i = plan.passes.size(); i-- > 0;)
        run_pass<true>(plan.passes[i], data, 0, plan.n_vectors / plan.size(i));
}

template <int R, bool TWO_HALVES, typename Read>
void top_forward(const Plan& plan, float* data, const Read& read) {
    const int64_t stride = plan.n_vectors / R;
    for (int64_t j = 0; j < stride; j++) {
        Complex x[R];
        for (int m = 0; m < R; m++) {
            x[m].re = read(m * stride + j);
            if constexpr (TWO_HALVES) x[m].im = read(plan.n_vectors + m * stride + j);
        }
        const float* powers = plan.top_powers.data();
        for (int i = 0; i < R; i++, powers += 2 * R) {
            Complex sum{x[0].re, TWO_HALVES ? x[0].im : vf{}};
            for (int m = 1; m < R; m++) {
                const float re = powers[2 * m], im = powers[2 * m + 1];
                sum = {sum.re + re * x[m].re, sum.im + im * x[m].re};
                if constexpr (TWO_HALVES) sum = {sum.re - im * x[m].im, sum.im + re * x[m].im};
            }
            store_complex(data + (i * stride + j) * COMPLEX, sum);
        }
    }
}

template <int R, bool TWO_HALVES, typename Write>
void top_inverse(const Plan& plan, const float* data, const Write& write) {
    const int64_t stride = plan.n_vectors / R;
    for (int64_t j = 0; j < stride; j++) {
        Complex v[R];
        for (int i = 0; i < R; i++) v[i] = load_complex(data + (i * stride + j) * COMPLEX);
        for (int m = 0; m < R; m++) {
            const float* inverse = plan.top_inverse.data() + 2 * m;
            Complex sum{};
            for (int i = 0; i < R; i++, inverse += 2 * R) {
                sum.re += inverse[0] * v[i].re + inverse[1] * v[i].im;
                if constexpr (TWO_HALVES) sum.im += inverse[0] * v[i].im - inverse[1] * v[i].re;
            }
            write(m * stride + j, sum.re);
            if constexpr (TWO_HALVES) write(plan.n_vectors + m * stride + j, sum.im);
        }
    }
}

template <typename F>
void with_top(const Plan& plan, const F& f) {
    switch (plan.top) {
        case 4: return f(std::integral_constant<int, 4>());
        case 5: return f(std::integral_constant<int, 5>());
        case 6: return f(std::integral_constant<int, 6>());
        default: return f(std::integral_constant<int, 7>());
    }
}

// Residues modulo the top's factors of a signal whose vector i is read(i): the first half of it, the other being
// zero, or TWO_HALVES.
template <bool TWO_HALVES, typename Read>
void read_signal(const Plan& plan, float* data, const Read& read) {
    with_top(plan, [&](auto top) { top_forward<top.value, TWO_HALVES>(plan, data, read); });
}

// The way back, write(i, vector), for the first half only or TWO_HALVES.
template <bool TWO_HALVES, typename Write>
void write_signal(const Plan& plan, const float* data, const Write& write) {
    with_top(plan, [&](auto top) { top_inverse<top.value, TWO_HALVES>(plan, data, write); });
}

}  // namespace helix
