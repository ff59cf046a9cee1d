// The backward pass of a rule: for each head of each sequence, its tiles of columns one after the other.
//
// States are recomputed, never divided out of later ones: decays may be zero. A first sweep keeps the state
// before each chunk of tokens and all that the rule read, u; then, from the last chunk to the first, the
// chunk's states are made again and kept, and G, the gradient of the state, goes back through them:
//
//     G_t  = scale q_t do_t^T + what S_{t+1} took of S_t
//     dx_t = G_t^T k_t         du_t = G_t^T b_t
//     dq_t = scale S_t do_t    dk_t = G_t x_t    db_t = G_t u_t    da_t = S_{t-1} du_t
//     d(log decay_t) = decay_t sum over columns of G_t S_{t-1}
//     what S_t took of S_{t-1}: diag(decay_t) G_t + a_t du_t^T

#pragma once

#include "lane_sums.h"
#include "linear_attention.h"

namespace helix::linear_attention {

struct Backward {
    Inputs in;
    Tokens grad_o;            // (B, L, H, V)
    const float* grad_final;  // (N, H, K, V) or null
    // Gradients, null where the rule has no such input. Rows and those for each head are in float32.
    float *grad_q, *grad_k;  // (B, L, H, K)
    void* grad_v;            // (B, L, H, V)
    float *grad_gate, *grad_a, *grad_b, *grad_log_decay, *grad_beta, *grad_initial;
    double scale;
};

// Tokens whose states are kept at a time, in the second-level cache.
constexpr int64_t BACKWARD_CHUNK = 16;

// What one tile of one head needs besides tensors; the memory of a block, reused from tile to tile.
template <typename R, int NV>
struct Workspace {
    int64_t state_size, n_chunks;
    float *kept, *reads, *states, *grad_state, *grads;
    Staged<R> tokens;

    static int64_t size(int64_t length, int64_t k_padded) {
        const int64_t state = k_padded * NV * W, chunks = round_up(length, BACKWARD_CHUNK) / BACKWARD_CHUNK;
        return state * (chunks + 1 + BACKWARD_CHUNK + 1) + (length + 1) * NV * W +
               BACKWARD_CHUNK * R::N_ROWS * k_padded + Staged<R>::size(BACKWARD_CHUNK, k_padded);
    }

    Workspace(float* memory, int64_t length, int64_t k_padded)
        : state_size(k_padded * NV * W), n_chunks(round_up(length, BACKWARD_CHUNK) / BACKWARD_CHUNK), kept(memory),
          reads(kept + (n_chunks + 1) * state_size), states(reads + (length + 1) * NV * W),
          grad_state(states + BACKWARD_CHUNK * state_size), grads(grad_state + state_size),
          tokens(grads + BACKWARD_CHUNK * R::N_ROWS * k_padded, BACKWARD_CHUNK, k_padded) {}

    float* grad_row(int64_t t, int which) const {
        return grads + (t * R::N_ROWS + which) * tokens.k_padded;
    }
};

// One step of the recomputation: S from `before` to `after`, and the row sums S do.
template <typename R, int NV>
inline void step_again(const float* before, float* after, const Staged<R>& tokens, int64_t t, const vf* x,
                       const vf* u, const vf* grad_o, float* grad_q) {
    const float *k = tokens.row(t, R::K), *gate = tokens.row(t, R::GATE), *b = tokens.row(t, R::B);
    const float all = tokens.decays[t];
    for (int64_t start = 0; start < tokens.k_padded; start += W) {
        vf sums[W];
        for (int r = 0; r < W; r++) {
            const int64_t i = start + r;
            const vf row_gate = broadcast(R::ROW_GATES ? gate[i] : all), row_k = broadcast(k[i]);
            const vf row_b = broadcast(R::APART ? b[i] : 0.0f);
            sums[r] = vf{};
            for (int j = 0; j < NV; j++) {
                vf s = load(before + i * NV * W + j * W) * row_gate + row_k * x[j];
                if constexpr (R::APART) s += row_b * u[j];
                store(after + i * NV * W + j * W, s);
                sums[r] += s * grad_o[j];
            }
        }
        store(grad_q + start, sum_each(sums));
    }
}

// The first half of a step back: G takes in what o_t gave, and gives dk, db, dx and du.
template <typename R, int NV>
inline void take_output(float* grad_state, const Staged<R>& tokens, int64_t t, const vf* x, const vf* u,
                        const vf* grad_o, float* grad_k, float* grad_b, vf* grad_x, vf* grad_u) {
    const float *q = tokens.row(t, R::Q), *k = tokens.row(t, R::K), *b = tokens.row(t, R::B);
    vf along_k[NV] = {}, along_b[NV] = {};
    for (int64_t start = 0; start < tokens.k_padded; start += W) {
        vf sums_k[W], sums_b[W];
        for (int r = 0; r < W; r++) {
            const int64_t i = start + r;
            const vf row_q = broadcast(q[i]), row_k = broadcast(k[i]), row_b = broadcast(R::APART ? b[i] : 0.0f);
            sums_k[r] = sums_b[r] = vf{};
            for (int j = 0; j < NV; j++) {
                vf g = load(grad_state + i * NV * W + j * W) + row_q * grad_o[j];
                store(grad_state + i * NV * W + j * W, g);
                sums_k[r] += g * x[j];
                along_k[j] += g * row_k;
                if constexpr (R::APART) sums_b[r] += g * u[j];
                if constexpr (R::APART) along_b[j] += g * row_b;
            }
        }
        store(grad_k + start, sum_each(sums_k));
        if constexpr (R::APART) store(grad_b + start, sum_each(sums_b));
    }
    std::copy_n(along_k, NV, grad_x);
    std::copy_n(along_b, NV, grad_u);
}

// The second half: from G_t and S_{t-1} the gradients of the decay and of a, and what S_t took of S_{t-1}.
// Returns the sum over all of S of what it took times S_{t-1}, where the decay is one for all of S.
template <typename R, int NV>
inline float take_state(float* grad_state, const float* before, const Staged<R>& tokens, int64_t t, const vf* grad_u,
                        float* grad_gate, float* grad_a) {
    const float *gate = tokens.row(t, R::GATE), *a = tokens.row(t, R::A);
    const float all = tokens.decays[t];
    vf total{};
    for (int64_t start = 0; start < tokens.k_padded; start += W) {
        vf sums_gate[W], sums_a[W];
        for (int r = 0; r < W; r++) {
            const int64_t i = start + r;
            const vf row_gate = broadcast(R::ROW_GATES ? gate[i] : all), row_a = broadcast(R::READS ? a[i] : 0.0f);
            sums_gate[r] = sums_a[r] = vf{};
            for (int j = 0; j < NV; j++) {
                const vf s = load(before + i * NV * W + j * W);
                vf g = load(grad_state + i * NV * W + j * W);
                if constexpr (R::ROW_GATES) sums_gate[r] += g * s;
                if constexpr (R::READS) sums_a[r] += s * grad_u[j];
                g *= row_gate;
                if constexpr (R::READS) g += row_a * grad_u[j];
                if constexpr (!R::ROW_GATES) sums_gate[r] += g * s;
                store(grad_state + i * NV * W + j * W, g);
            }
            if constexpr (!R::ROW_GATES) total += sums_gate[r];
        }
        if constexpr (R::ROW_GATES) store(grad_gate + start, sum_each(sums_gate) * load(gate + start));
        // Where the key is what reads, its gradient holds what it wrote already.
        if constexpr (R::READS) store(grad_a + start, sum_each(sums_a) + (R::APART ? vf{} : load(grad_a + start)));
    }
    return R::ROW_GATES ? 0.0f : sum(total);
}

template <typename R, int NV, typename T>
class BackwardTile {
   public:
    BackwardTile(const Backward& a, int64_t sequence, int64_t head, int64_t column, float* memory)
        : a_(a), in_(a.in), span_(span_of(in_, sequence)), head_(head), column_(column),
          width_(std::min<int64_t>(in_.v_dim - column, NV * W)), k_padded_(round_up(in_.k_dim, W)),
          state_offset_((sequence * in_.n_heads + head) * in_.k_dim * in_.v_dim + column),
          work_(memory, span_.length, k_padded_) {}

    void run() {
        sweep();
        load_state<NV>(work_.grad_state, a_.grad_final ? a_.grad_final + state_offset_ : nullptr, in_.k_dim,
                       in_.v_dim, width_, k_padded_);
        for (int64_t chunk = work_.n_chunks; chunk-- > 0;) go_back(chunk);
        if (a_.grad_initial)
            store_state<NV>(a_.grad_initial + state_offset_, work_.grad_state, in_.k_dim, in_.v_dim, width_);
    }

   private:
    const Backward& a_;
    const Inputs& in_;
    const Span span_;
    const int64_t head_, column_, width_, k_padded_, state_offset_;
    const Workspace<R, NV> work_;

    int64_t tokens_in(int64_t chunk) const {
        return std::min(BACKWARD_CHUNK, span_.length - chunk * BACKWARD_CHUNK);
    }
    int64_t token(int64_t t) const { return span_.start + t; }
    int64_t place(int64_t t) const { return (span_.batch * in_.seq_len + token(t)) * in_.n_heads + head_; }
    float* kept(int64_t chunk) const { return work_.kept + chunk * work_.state_size; }
    float* reads(int64_t t) const { return work_.reads + t * NV * W; }

    void stage_chunk(int64_t chunk, int64_t next) const {
        work_.tokens.template fill<T>(in_, span_, head_, chunk * BACKWARD_CHUNK, tokens_in(chunk), next,
                                      float(a_.scale));
    }

    // v_t, u_t and x_t.
    void columns(int64_t t, float decay_, vf* v, vf* u, vf* x) const {
        load_columns<NV>(v, in_.v.template at<T>(span_.batch, token(t), head_) + column_, width_);
        if constexpr (R::READS) load_columns<NV>(u, reads(t), NV * W);
        written<R, NV>(x, v, u, in_.beta ? in_.beta[place(t)] : 1.0f, decay_);
    }

    // Keeps the state before each chunk, and u of every token.
    void sweep() const {
        load_state<NV>(kept(0), in_.initial_state ? in_.initial_state + state_offset_ : nullptr, in_.k_dim,
                       in_.v_dim, width_, k_padded_);
        const Staged<R>& tokens = work_.tokens;
        for (int64_t chunk = 0; chunk < work_.n_chunks; chunk++) {
            stage_chunk(chunk, BACKWARD_CHUNK);
            const int64_t n = tokens_in(chunk);
            Place from{kept(chunk), NV * W};
            const Place state{kept(chunk + 1), NV * W};
            vf v[NV], u[NV], x[NV];
            if constexpr (R::READS) read<NV>(u, from.data, from.stride, tokens.row(0, R::A), k_padded_);
            for (int64_t i = 0; i < n; i++, from = state) {
                const int64_t t = chunk * BACKWARD_CHUNK + i;
                if constexpr (R::READS) store_columns<NV>(reads(t), u, NV * W);
                columns(t, tokens.decays[i], v, u, x);
                step<R, NV, false>(from, state, tokens, i, tokens.row(std::min(i + 1, n - 1), R::A), x, u, u);
            }
        }
    }

    void go_back(int64_t chunk) const {
        const Staged<R>& tokens = work_.tokens;
        const int64_t n = tokens_in(chunk);
        stage_chunk(chunk, -BACKWARD_CHUNK);
        const auto before = [&](int64_t i) { return i ? work_.states + (i - 1) * work_.state_size : kept(chunk); };
        vf v[NV], u[NV], x[NV], grad_o[NV];
        for (int64_t i = 0; i < n; i++) {
            const int64_t t = chunk * BACKWARD_CHUNK + i;
            columns(t, tokens.decays[i], v, u, x);
            load_columns<NV>(grad_o, a_.grad_o.template at<T>(span_.batch, token(t), head_) + column_, width_);
            step_again<R, NV>(before(i), work_.states + i * work_.state_size, tokens, i, x, u, grad_o,
                              work_.grad_row(i, R::Q));
        }
        for (int64_t i = n; i-- > 0;) step_back(chunk * BACKWARD_CHUNK + i, i, before(i));
        for (int64_t i = 0; i < n; i++) write_rows(chunk * BACKWARD_CHUNK + i, i);
    }

    void step_back(int64_t t, int64_t i, const float* before) const {
        const Staged<R>& tokens = work_.tokens;
        const float decay_ = tokens.decays[i];
        vf v[NV], u[NV], x[NV], grad_o[NV], grad_x[NV], grad_u[NV];
        columns(t, decay_, v, u, x);
        load_columns<NV>(grad_o, a_.grad_o.template at<T>(span_.batch, token(t), head_) + column_, width_);
        take_output<R, NV>(work_.grad_state, tokens, i, x, u, grad_o, work_.grad_row(i, R::K),
                           work_.grad_row(i, R::B), grad_x, grad_u);
        if constexpr (R::READS && !R::APART) {
            const float beta = in_.beta[place(t)];
            vf of_beta{};
            for (int j = 0; j < NV; j++) {
                of_beta += grad_x[j] * (v[j] - decay_ * u[j]);
                grad_x[j] *= beta;
                grad_u[j] = -decay_ * grad_x[j];
            }
            add(a_.grad_beta + place(t), sum(of_beta));
        }
        store_columns<NV>(static_cast<T*>(a_.grad_v) + place(t) * in_.v_dim + column_, grad_x, width_);
        const float of_decay = take_state<R, NV>(work_.grad_state, before, tokens, i, grad_u,
                                                 work_.grad_row(i, R::GATE), work_.grad_row(i, R::A));
        if constexpr (!R::ROW_GATES) add(a_.grad_log_decay + place(t), of_decay);
    }

    // The first tile of a head writes the gradients that all its tiles share, the others add theirs.
    void add(float* to, float x) const { *to = column_ ? *to + x : x; }

    void write_rows(int64_t t, int64_t i) const {
        add_row(a_.grad_q, t, work_.grad_row(i, R::Q), float(a_.scale));
        add_row(a_.grad_k, t, work_.grad_row(i, R::K), 1.0f);
        if constexpr (R::ROW_GATES) add_row(a_.grad_gate, t, work_.grad_row(i, R::GATE), 1.0f);
        if constexpr (R::APART) add_row(a_.grad_a, t, work_.grad_row(i, R::A), 1.0f);
        if constexpr (R::APART) add_row(a_.grad_b, t, work_.grad_row(i, R::B), 1.0f);
    }

    void add_row(float* grad, int64_t t, const float* row, float scale) const {
        float* to = grad + place(t) * in_.k_dim;
        for (int64_t i = 0; i < in_.k_dim; i += W) {
            const int lanes = lanes_left(in_.k_dim - i);
            const vf x = load(row + i) * scale;
            store(to + i, column_ ? load(to + i, lanes) + x : x, lanes);
        }
    }
};

template <typename R, typename T>
void backward(const Backward& a, int64_t threads) {
    const Inputs& in = a.in;
    for_blocks(in.n_sequences * in.n_heads, threads, [&](int64_t block) {
        const int64_t sequence = block / in.n_heads, head = block % in.n_heads;
        const int64_t length = span_of(in, sequence).length, k_padded = round_up(in.k_dim, W);
        Scratch scratch(Workspace<R, MAX_VECTORS>::size(length, k_padded));
        for (int64_t column = 0; column < in.v_dim; column += MAX_VECTORS * W)
            with_vectors(in.v_dim - column, [&](auto nv) {
                BackwardTile<R, nv(), T>(a, sequence, head, column, scratch.get()).run();
            });
    });
}

template <typename R>
void run_backward(const Backward& a, int64_t threads) {
    a.in.dtype ? backward<R, bf16>(a, threads) : backward<R, float>(a, threads);
}

}  // namespace helix::linear_attention
