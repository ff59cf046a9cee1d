// One step of the selective scan, as decoding takes it: a state goes once from memory to memory.
//
// Lanes are states here, which lie side by side in A and in the state: nothing need be turned round.

#pragma once

#include "lane_sums.h"
#include "selective_scan.h"

namespace helix::selective_scan {

// One channel's step: h' = exp(dt A) h + x B, all (N), with dt times log2(e). Returns C h', lane by lane, and
// the largest exponent so far; where that is 126 or more, only WIDE gives sense.
template <bool WIDE>
inline vf step_channel(float dt, float x, const float* A, const float* h, const Chunk& step, int64_t d_state,
                       float* next, vf& largest) {
    vf y{};
    for (int64_t j = 0; j < d_state; j += W) {
        const int n = int(std::min<int64_t>(W, d_state - j));
        const vf exponent = dt * load(A + j, n);
        largest = max(exponent, largest);
        const vf decay = WIDE ? exp2(exponent) : exp2_product(max(splat(-126.0f), exponent), splat(1.0f));
        const vf before = h ? load(h + j, n) : vf{};
        const vf after = fma(decay, before, x * load(step.B.rows + j, n));
        store(next + j, after, n);
        y = fma(after, load(step.C.rows + j, n), y);
    }
    return y;
}

// C h' of n <= W channels from c on of one sequence, given their dt and dt u.
template <bool WIDE>
inline vf step_states(const Forward& a, int64_t sequence, int64_t c, int n, vf dt, vf x, const Chunk& step,
                      vf& largest) {
    const Inputs& in = a.in;
    float dts[W], xs[W];
    store(dts, dt * LOG2_E);
    store(xs, x);
    vf sums[W] = {};
    for (int i = 0; i < n; i++) {
        const int64_t state = (sequence * in.d_model + c + i) * in.d_state;
        const float* before = in.initial_state ? in.initial_state + state : nullptr;
        sums[i] = step_channel<WIDE>(dts[i], xs[i], in.A + (c + i) * in.d_state, before, step, in.d_state,
                                     a.final_state + state, largest);
    }
    return sum_each(sums);
}

// The step of vector of channels k.
template <typename T>
inline void step_channels(const Forward& a, const View<T>& at, int64_t k, const Chunk& step) {
    const Inputs& in = a.in;
    const int n = at.slab.lanes(k);
    const int64_t c = at.channel(k);
    const vf u = load(at.u(0, k), n), raw = load(at.delta(0, k), n) + load_channels(in.delta_bias, c, n);
    const vf dt = in.softplus ? softplus(raw) : raw, x = dt * u;
    vf largest{};
    vf y = step_states<false>(a, at.sequence, c, n, dt, x, step, largest);
    if (any(!(largest < 126.0f))) y = step_states<true>(a, at.sequence, c, n, dt, x, step, largest);
    y += load_channels(in.D, c, n) * u;
    if (in.z) y *= silu(load(at.z(0, k), n));
    store(static_cast<T*>(a.y) + at.output(0, k), y, n);
}

template <typename T>
inline void step_slab(const Forward& a, int64_t sequence, const Slab& slab) {
    Scratch projections(2 * a.in.d_state);
    const View<T> at{a.in, slab, sequence};
    const Chunk step = at.chunk(0, 1, projections.get(), projections.get() + a.in.d_state);
    for (int64_t k = 0; k < slab.n_blocks(); k++) step_channels(a, at, k, step);
}

}  // namespace helix::selective_scan
