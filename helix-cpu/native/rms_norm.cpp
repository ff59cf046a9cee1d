// Root-mean-square normalisation of rows, in groups of channels, with a gate after or before it.

#include <algorithm>
#include <cmath>

#include "call.h"
#include "functions.h"
#include "parallel.h"

namespace helix {
namespace {

struct Forward {
    const void* x;        // (R, D), rows apart by x_stride
    const void* z;        // (R, D) or null
    const float* weight;  // (D)
    void* y;              // (R, D)
    int64_t n_rows, d_model, group_size, x_stride, z_stride, dtype, norm_before_gate;
    double eps;
};

struct Backward {
    const void* x;
    const void* z;
    const float* weight;
    const void* grad_y;    // (R, D)
    void* grad_x;          // (R, D)
    void* grad_z;          // (R, D) or null
    float* grad_weight;    // (P, D): a sum for each block of rows
    int64_t n_rows, d_model, group_size, x_stride, z_stride, dtype, norm_before_gate, rows_per_block;
    double eps;
};

constexpr int64_t ROWS_PER_BLOCK = 16;

// What a row's elements are before the norm, and what multiplies them after it.
template <bool GATE_FIRST, typename T>
inline vf before_norm(const T* x, const T* z, int n) {
    vf s = load(x, n);
    if (GATE_FIRST && z) s *= silu(load(z, n));
    return s;
}

template <typename F>
inline void for_lanes(int64_t n, const F& f) {
    int64_t i = 0;
    for (; i + W <= n; i += W) f(i, W);
    if (i < n) f(i, int(n - i));
}

// Asks for the memory that is read and written after it: of z, unless it is read here, and of y.
template <bool GATE_FIRST, typename T>
inline float inverse_rms(const T* x, const T* z, const T* y, int64_t n, float eps) {
    vf squares{};
    for_lanes(n, [&](int64_t i, int lanes) {
        if (!GATE_FIRST && z) __builtin_prefetch(z + i);
        __builtin_prefetch(y + i, 1);
        vf s = before_norm<GATE_FIRST>(x + i, z ? z + i : z, lanes);
        squares += s * s;
    });
    return 1.0f / std::sqrt(sum(squares) / float(n) + eps);
}

// One group of a row, of which x, z, weight and y begin at the group's first channel; z may be null.
template <bool GATE_FIRST, typename T>
struct Group {
    const T *x, *z;
    const float* weight;
    T* y;
    float scale;

    // N vectors from channel i on, the last of them of n lanes. Memory is asked for the next row's inputs.
    template <int N>
    void normalise(int64_t i, int n, int64_t next_row) const {
        vf gate[N];
        for (int k = 0; z && k < N; k++) gate[k] = load(z + i + k * W, k + 1 < N ? W : n);
        if (z) silu_each(gate);
        for (int k = 0; k < N; k++, i += W) {
            const int lanes = k + 1 < N ? W : n;
            __builtin_prefetch(x + next_row + i);
            vf s = load(x + i, lanes);
            if (GATE_FIRST && z) s *= gate[k];
            s *= scale * load(weight + i, lanes);
            if (!GATE_FIRST && z) s *= gate[k];
            store(y + i, s, lanes);
        }
    }
};

template <bool GATE_FIRST, typename T>
void normalise(const Forward& a, int64_t row, int64_t start) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride + start;
    const T* z = a.z ? static_cast<const T*>(a.z) + row * a.z_stride + start : nullptr;
    T* y = static_cast<T*>(a.y) + row * a.d_model + start;
    const float scale = inverse_rms<GATE_FIRST>(x, z, y, a.group_size, float(a.eps));
    const Group<GATE_FIRST, T> group{x, z, a.weight + start, y, scale};
    int64_t i = 0;
    for (; i + 4 * W <= a.group_size; i += 4 * W) group.template normalise<4>(i, W, a.x_stride);
    for (; i < a.group_size; i += W)
        group.template normalise<1>(i, int(std::min<int64_t>(W, a.group_size - i)), a.x_stride);
}

// With n = s r the normalised row, r = 1/sqrt(mean(s^2) + eps) and g the gradient of n:
// ds = r (g - n mean(g n)).
template <bool GATE_FIRST, typename T>
void differentiate(const Backward& a, int64_t row, int64_t start, float* grad_weight) {
    const T* x = static_cast<const T*>(a.x) + row * a.x_stride + start;
    const T* z = a.z ? static_cast<const T*>(a.z) + row * a.z_stride + start : nullptr;
    const T* grad_y = static_cast<const T*>(a.grad_y) + row * a.d_model + start;
    T* grad_x = static_cast<T*>(a.grad_x) + row * a.d_model + start;
    T* grad_z = a.grad_z ? static_cast<T*>(a.grad_z) + row * a.d_model + start : nullptr;
    const float* weight = a.weight + start;
    const float scale = inverse_rms<GATE_FIRST>(x, z, grad_x, a.group_size, float(a.eps));
    vf products{};
    for_lanes(a.group_size, [&](int64_t i, int lanes) {
        vf grad = load(grad_y + i, lanes);
        vf normal = before_norm<GATE_FIRST>(x + i, z ? z + i : z, lanes) * scale;
        vf gate = splat(1.0f);
        if (!GATE_FIRST && z) {
            vf v = load(z + i, lanes), s = sigmoid(v);
            gate = v * s;
            store(grad_z + i, grad * normal * load(weight + i, lanes) * silu_slope(v, s), lanes);
        }
        store(grad_weight + start + i, load(grad_weight + start + i, lanes) + grad * gate * normal, lanes);
        products += grad * gate * load(weight + i, lanes) * normal;
    });
    const float mean = sum(products) / float(a.group_size);
    for_lanes(a.group_size, [&](int64_t i, int lanes) {
        vf grad = load(grad_y + i, lanes) * load(weight + i, lanes);
        vf normal = before_norm<GATE_FIRST>(x + i, z ? z + i : z, lanes) * scale;
        if (!z) {
            store(grad_x + i, (grad - normal * mean) * scale, lanes);
            return;
        }
        vf v = load(z + i, lanes), s = sigmoid(v);
        if (!GATE_FIRST) {
            store(grad_x + i, (grad * v * s - normal * mean) * scale, lanes);
            return;
        }
        vf grad_s = (grad - normal * mean) * scale;
        store(grad_z + i, grad_s * load(x + i, lanes) * silu_slope(v, s), lanes);
        store(grad_x + i, grad_s * v * s, lanes);
    });
}

template <typename F>
void for_groups(int64_t d_model, int64_t group_size, const F& f) {
    for (int64_t start = 0; start < d_model; start += group_size) f(start);
}

template <bool GATE_FIRST, typename T>
void run_forward(const Forward& a, int64_t threads) {
    for_blocks((a.n_rows + ROWS_PER_BLOCK - 1) / ROWS_PER_BLOCK, threads, [&](int64_t block) {
        const int64_t end = std::min(a.n_rows, (block + 1) * ROWS_PER_BLOCK);
        for (int64_t row = block * ROWS_PER_BLOCK; row < end; row++)
            for_groups(a.d_model, a.group_size, [&](int64_t start) { normalise<GATE_FIRST, T>(a, row, start); });
    });
}

template <bool GATE_FIRST, typename T>
void run_backward(const Backward& a, int64_t threads) {
    for_blocks((a.n_rows + a.rows_per_block - 1) / a.rows_per_block, threads, [&](int64_t block) {
        float* grad_weight = a.grad_weight + block * a.d_model;
        std::memset(grad_weight, 0, a.d_model * sizeof(float));
        const int64_t end = std::min(a.n_rows, (block + 1) * a.rows_per_block);
        for (int64_t row = block * a.rows_per_block; row < end; row++)
            for_groups(a.d_model, a.group_size,
                       [&](int64_t start) { differentiate<GATE_FIRST, T>(a, row, start, grad_weight); });
    });
}

void forward(const Forward& a, int64_t threads) {
    if (a.dtype)
        a.norm_before_gate ? run_forward<false, bf16>(a, threads) : run_forward<true, bf16>(a, threads);
    else
        a.norm_before_gate ? run_forward<false, float>(a, threads) : run_forward<true, float>(a, threads);
}

void backward(const Backward& a, int64_t threads) {
    if (a.dtype)
        a.norm_before_gate ? run_backward<false, bf16>(a, threads) : run_backward<true, bf16>(a, threads);
    else
        a.norm_before_gate ? run_backward<false, float>(a, threads) : run_backward<true, float>(a, threads);
}

}  // namespace
}  // namespace helix

HELIX_KERNEL(rms_norm, helix::Forward, helix::forward)
HELIX_KERNEL(rms_norm_backward, helix::Backward, helix::backward)
