// What the selective scan's backward pass runs on: states on their way back through a chunk, and memory.
//
// With g the gradient of C h and G_t that of h_t:  G_t = g_t C_t + a_{t+1} G_{t+1},  dC_t = sum_d g_t h_t,
// dB_t = sum_d x_t G_t,  dx_t = B_t G_t,  d(dt_t A) = a_t G_t h_{t-1}, where x = dt u and a = exp(dt A).

#pragma once

#include "call.h"
#include "lane_sums.h"
#include "selective_scan.h"

namespace helix::selective_scan {

// Fewer states than forward: each has a gradient, a sum for dA and a value carried along in registers.
constexpr int BACK = W == 16 ? 4 : 2;

// What the way back keeps of each step of the vector of channels at hand, each (STEPS, W). X: dt u. GRAD: the
// gradient of C h + D u. GATE: what the gate's gradient is a multiple of. SLOPE: d dt / d delta. Y: C h.
enum Part { DT, X, GRAD, GATE, SLOPE, GRAD_X, GRAD_DT, Y, EXPS, PARTS };

constexpr int64_t MAX_BLOCKS = 256 / W;  // vectors of channels in a slab

// A few states of one vector of channels on their way back through a chunk.
struct Going {
    float *G, *grad_A;        // (N, W): a_{t+1} G_{t+1}; the sums for dA, of d(dt A) dt
    float* sums;              // (STEPS, W): dB and dC of N states, each still in W / 2N lanes
    const float* g;           // (STEPS, W), and so the next two
    float *grad_x, *grad_dt;  // sums over the states of dx, and of d(dt A) A
    Fetch fetch;
};

template <int N>
inline void go_back(const Chunk& chunk, const float* A, int64_t j, const float* kept, const Going& to) {
    vf G[N], grad_A[N] = {}, h[N], rate[N];
    for (int i = 0; i < N; i++) {
        G[i] = load(to.G + i * W), rate[i] = load(A + i * W);
        h[i] = load(kept + state_at(chunk.n, i, N));
    }
    for (int t = chunk.n - 1; t >= 0; t--) {
        const vf g = load(to.g + t * W), x = load(chunk.x + t * W), dt = load(chunk.dt + t * W);
        const float *B = chunk.B.at(t) + j, *C = chunk.C.at(t) + j;
        vf grad_x = load(to.grad_x + t * W), grad_dt = load(to.grad_dt + t * W);
        to.fetch.row(t);
        vf products[2 * N];
#pragma GCC unroll 4
        for (int i = 0; i < N; i++) {
            const vf grad_h = fma(g, splat(C[i]), G[i]);
            products[i] = x * grad_h, products[N + i] = g * h[i];
            grad_x = fma(grad_h, splat(B[i]), grad_x);
            G[i] = load(kept + decay_at(t, i, N)) * grad_h;
            h[i] = load(kept + state_at(t, i, N));
            const vf grad_exponent = G[i] * h[i];
            grad_dt = fma(grad_exponent, rate[i], grad_dt);
            grad_A[i] = fma(grad_exponent, dt, grad_A[i]);
        }
        fold_all<N>(products);
        store(to.sums + t * W, load(to.sums + t * W) + products[0]);
        store(to.grad_x + t * W, grad_x);
        store(to.grad_dt + t * W, grad_dt);
    }
    for (int i = 0; i < N; i++) {
        store(to.G + i * W, G[i]);
        store(to.grad_A + i * W, load(to.grad_A + i * W) + grad_A[i]);
    }
}

// Writes what `go_back` left in sums (n, W) to the rows of dB and dC (n, N), `time_stride` apart.
template <int N>
inline void sum_lanes(const float* sums, int n, float* grad_B, float* grad_C, int64_t time_stride) {
    for (int t = 0; t < n; t++) {
        float totals[2 * N] = {};
        for (int lane = 0; lane < W; lane++) totals[lane % (2 * N)] += sums[t * W + lane];
        std::copy_n(totals, N, grad_B + t * time_stride);
        std::copy_n(totals + N, N, grad_C + t * time_stride);
    }
}

// Memory for one slab of channels, in parts named after what they hold; K vectors of channels, one of which
// goes through a chunk at a time.
struct Memory {
    float *A, *G, *grad_A, *initial;        // (K, N, W)
    float *largest_A, *grad_D, *grad_bias;  // (K, W)
    float* steps;                           // (PARTS, STEPS, W)
    float* sums;                            // (tiles of states, STEPS, W)
    float* kept;                            // (STEPS + 1, BACK, 2, W)
    float *B, *C;                           // (STEPS, N)

    Memory(int64_t d_state, int64_t k) : floats_(size(d_state, k)), next_(floats_.get()) {
        for (float** part : {&A, &G, &grad_A, &initial}) take(*part, k * d_state * W);
        for (float** part : {&largest_A, &grad_D, &grad_bias}) take(*part, k * W);
        take(steps, PARTS * STEPS * W);
        take(sums, tiles(d_state) * STEPS * W);
        take(kept, (STEPS + 1) * BACK * 2 * W);
        for (float** part : {&B, &C}) take(*part, STEPS * d_state);
    }

   private:
    static int64_t tiles(int64_t d_state) { return d_state / BACK + d_state % BACK; }
    static int64_t size(int64_t d_state, int64_t k) {
        return k * (4 * d_state + 3) * W + (PARTS + tiles(d_state)) * STEPS * W +
               (STEPS + 1) * 2 * BACK * W + 2 * STEPS * d_state;
    }
    void take(float*& part, int64_t n) { part = next_, next_ += n; }

    Scratch floats_;
    float* next_;
};

}  // namespace helix::selective_scan
