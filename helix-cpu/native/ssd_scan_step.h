// A few tokens of the state-space duality's recurrence, row by row of the state as it lies in memory (P, N).

#pragma once

#include "lane_sums.h"
#include "ssd_scan.h"

namespace helix::ssd {

constexpr int64_t FEW_TOKENS = 4;  // up to here the state is not worth laying out anew

// What a token brings to its head.
template <typename T>
struct Token {
    const T *x, *B, *C;
    T* y;
    float dt, decay;
};

// The rows of one head's state from p on, up to W of them; `before` may be null.
template <int N_TOKENS, typename T>
inline void step_rows(const Inputs& in, const Token<T>* tokens, int64_t head, int64_t p, const float* before,
                      float* after) {
    const int n_rows = int(std::min(int64_t(W), in.head_dim - p));
    vf outputs[N_TOKENS][W]{};
    for (int r = 0; r < n_rows; r++) {
        float inputs[N_TOKENS];
        for (int t = 0; t < N_TOKENS; t++) inputs[t] = tokens[t].dt * get(tokens[t].x + p + r);
        const int64_t row = (p + r) * in.d_state;
        for_lanes(in.d_state, [&](int64_t k, int n) {
            vf state = before ? load(before + row + k, n) : vf{};
            for (int t = 0; t < N_TOKENS; t++) {
                state = state * tokens[t].decay + load(tokens[t].B + k, n) * inputs[t];
                outputs[t][r] += state * load(tokens[t].C + k, n);
            }
            store(after + row + k, state, n);
        });
    }
    for (int t = 0; t < N_TOKENS; t++) {
        vf y = sum_each(outputs[t]);
        if (in.D) y += in.D_lanes(head, p, n_rows) * load(tokens[t].x + p, n_rows);
        store(tokens[t].y + p, y, n_rows);
    }
}

// One head of a sequence of N_TOKENS.
template <int N_TOKENS, typename T>
void step_head(const Forward& a, int64_t i, int64_t head) {
    const Inputs& in = a.in;
    const int64_t g = in.group(head), offset = (i * in.n_heads + head) * in.state_size();
    const float* before = in.initial_state ? in.initial_state + offset : nullptr;
    Steps<W> steps;
    steps.compute(in, i, 0, N_TOKENS, head);
    Token<T> tokens[N_TOKENS];
    for (int64_t t = 0; t < N_TOKENS; t++)
        tokens[t] = {in.x_at<T>(i, t, head), in.B_at<T>(i, t, g),     in.C_at<T>(i, t, g),
                     a.y_at<T>(i, t, head),  steps.dt[t], float(steps.decay[t])};
    for (int64_t p = 0; p < in.head_dim; p += W)
        step_rows<N_TOKENS>(in, tokens, head, p, before, a.final_state + offset);
}

template <typename T>
void step(const Forward& a, int64_t i, int64_t head) {
    const Inputs& in = a.in;
    static_assert(FEW_TOKENS == 4, "as many cases");
    switch (in.sequences().size(i)) {
        case 1: return step_head<1, T>(a, i, head);
        case 2: return step_head<2, T>(a, i, head);
        case 3: return step_head<3, T>(a, i, head);
        case 4: return step_head<4, T>(a, i, head);
    }
    const int64_t offset = (i * in.n_heads + head) * in.state_size();
    for (int64_t k = 0; k < in.state_size(); k++)
        a.final_state[offset + k] = in.initial_state ? in.initial_state[offset + k] : 0.0f;
}

}  // namespace helix::ssd
