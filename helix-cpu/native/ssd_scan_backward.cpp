// The gradient of the state-space duality's recurrence, chunk by chunk as products of small matrices.
//
// Within a chunk of tokens s <= t, with L_ts the decay from s to t, H the state before the chunk and dH the
// gradient of that after it:
//   y_t = L_t H C_t + sum_s L_ts (C_t B_s) dt_s x_s        (section 6 of https://arxiv.org/abs/2405.21060)
// Every decay is a product that is made anew in each chunk, and nothing is divided by one: any decay will do.

#include "ssd_scan_backward.h"

namespace helix::ssd {
namespace {

constexpr int64_t CACHE = 1024 * 1024;  // floats that the states of heads worked on together may take
constexpr double FADED = 1e-32;  // a decay as good as none: products with less are denormal, and slow
constexpr int64_t BLOCKS = 8;  // of heads in a group: the sums of each take about as much memory as B and C

inline float faded(double decay) { return decay < FADED ? 0.0f : float(decay); }

// What a chunk of one head brings along, on the way back through time.
struct Scores {
    alignas(64) float decay[CHUNK][CHUNK];     // L_ts, zero where s > t
    alignas(64) float weight[CHUNK][CHUNK];    // L_ts C_t B_s
    alignas(64) float gradient[CHUNK][CHUNK];  // of log L_ts
    alignas(64) float from_start[CHUNK];       // the decay from the chunk's start to t
    alignas(64) float to_end[CHUNK];           // the decay from s to the chunk's end

    void compute(const Steps<CHUNK>& steps, int64_t size, const float* products) {
        double row[CHUNK]{}, begin = 1.0;
        std::fill(to_end, to_end + CHUNK, 0.0f);
        for (int64_t t = 0; t < size; t++) {
            begin *= steps.decay[t];
            from_start[t] = faded(begin);
            for (int64_t s = 0; s < t; s++) row[s] *= steps.decay[t];
            row[t] = 1.0;
            for (int64_t s = 0; s < CHUNK; s++) decay[t][s] = faded(row[s]);
            for (int64_t s = 0; s < CHUNK; s += W)
                store(weight[t] + s, load(decay[t] + s) * load(products + t * CHUNK + s));
        }
        for (int64_t s = 0; s < size; s++) to_end[s] = faded(row[s]);
    }
};

// Some heads of one sequence: forward through time for the states, then back. They go through each chunk one
// after the other, so that what lies (B, L, H, P) is read and written in longer runs.
template <typename T>
class Heads {
   public:
    Heads(const Backward& a, const Chunks& chunks, const Projections& projections, int64_t sequence,
          int64_t first, int64_t n_heads, int64_t per_block)
        : a_(a),
          in_(a.in),
          chunks_(chunks.all.data() + chunks.first[sequence]),
          first_chunk_(chunks.first[sequence]),
          n_chunks_(chunks.first[sequence + 1] - first_chunk_),
          projections_(projections),
          i_(sequence),
          first_(first),
          n_heads_(n_heads),
          per_block_(per_block),
          P_(in_.head_dim),
          N_(in_.d_state),
          width_(projections.width()),
          state_stride_(projections.stride()),
          state_size_(P_ * state_stride_),
          stride_(padded(P_)),
          rows_(CHUNK * stride_),
          memory_((n_heads * (n_chunks_ + 2)) * state_size_ + (2 * n_heads + 3) * rows_),
          states_(memory_.get()),
          x_(states_ + n_heads * (n_chunks_ + 2) * state_size_),
          grad_y_(x_ + n_heads * rows_),
          turned_x_(grad_y_ + n_heads * rows_),
          grad_u_(turned_x_ + rows_),
          turned_grad_u_(grad_u_ + rows_),
          grad_A_(n_heads, 0.0),
          grad_bias_(n_heads, 0.0) {
        std::fill(x_, turned_grad_u_ + rows_, 0.0f);
    }

    // The sums of head k are those of sums(k), the same ones for each `per_block` heads.
    template <typename F>
    void run(const F& sums) {
        for (int64_t k = 0; k < n_heads_; k++) {
            copy_state(in_.initial_state, k, state(k, 0));
            copy_state(a_.grad_final_state, k, grad_state(k));
        }
        std::fill(a_.grad_D + row(0) * P_, a_.grad_D + row(n_heads_) * P_, 0.0f);
        for (int64_t c = 0; c + 1 < n_chunks_; c++) {
            load_rows(in_.x_at<T>(i_, chunks_[c].start, first_), in_.x_time, in_.x_head, chunks_[c].size, x_);
            for (int64_t k = 0; k < n_heads_; k++) advance(k, c);
        }
        for (int64_t c = n_chunks_ - 1; c >= 0; c--) {
            load_rows(in_.x_at<T>(i_, chunks_[c].start, first_), in_.x_time, in_.x_head, chunks_[c].size, x_);
            const T* grad_y = static_cast<const T*>(a_.grad_y) + place(c) * P_;
            load_rows(grad_y, in_.n_heads * P_, P_, chunks_[c].size, grad_y_);
            for (int64_t k = 0; k < n_heads_; k++) {
                if (k % per_block_ == 0) sums(k).clear(chunks_[c].token, chunks_[c].size, width_);
                go_back(k, c, sums(k));
            }
            store_rows(static_cast<T*>(a_.grad_x) + place(c) * P_, chunks_[c].size);
        }
        for (int64_t k = 0; k < n_heads_; k++) put_sums(k);
    }

   private:
    int64_t row(int64_t k) const { return i_ * in_.n_heads + first_ + k; }
    int64_t place(int64_t c) const { return chunks_[c].token * in_.n_heads + first_; }
    float* state(int64_t k, int64_t c) const { return states_ + (k * (n_chunks_ + 2) + c) * state_size_; }
    float* grad_state(int64_t k) const { return state(k, n_chunks_ + 1); }
    float* x(int64_t k) const { return x_ + k * rows_; }
    float* grad_y(int64_t k) const { return grad_y_ + k * rows_; }

    void copy_state(const float* from, int64_t k, float* to) const {
        std::fill(to, to + state_size_, 0.0f);
        for (int64_t p = 0; p < P_ && from; p++)
            std::copy_n(from + (row(k) * P_ + p) * N_, N_, to + p * state_stride_);
    }

    // Rows of zeros follow the last token: vectors over time hold whole chunks.
    void load_rows(const T* from, int64_t time_stride, int64_t head_stride, int64_t size, float* to) const {
        for (int64_t t = 0; t < CHUNK; t++)
            for (int64_t k = 0; k < n_heads_; k++)
                for_lanes(P_, [&](int64_t p, int n) {
                    const vf values = t < size ? load(from + t * time_stride + k * head_stride + p, n) : vf{};
                    store(to + k * rows_ + t * stride_ + p, values);
                });
    }

    void store_rows(T* to, int64_t size) const {
        for (int64_t t = 0; t < size; t++)
            for (int64_t k = 0; k < n_heads_; k++)
                for_lanes(P_, [&](int64_t p, int n) {
                    store(to + (t * in_.n_heads + k) * P_ + p, load(x(k) + t * stride_ + p), n);
                });
    }

    void scale_row(float* values, float scale) const {
        for (int64_t p = 0; p < stride_; p += W) store(values + p, load(values + p) * scale);
    }

    // The state after chunk c from that before it: H' = L H + sum_s L_s dt_s x_s B_s^T.
    void advance(int64_t k, int64_t c) {
        const Chunk& at = chunks_[c];
        steps_.compute(in_, i_, at.start, at.size, first_ + k);
        double decay = 1.0;
        for (int64_t s = at.size - 1; s >= 0; s--) {
            scale_row(x(k) + s * stride_, faded(decay) * steps_.dt[s]);
            decay *= steps_.decay[s];
        }
        const float* B = projections_.B(first_chunk_ + c, in_.group(first_ + k));
        carry_over(x(k), B, faded(decay), at.size, state(k, c), state(k, c + 1), [](vf, int64_t) {});
    }

    // after (P, N) = decay before + inputs^T outputs, both of so many tokens; calls see(vector, place) for all
    // of `before`.
    template <typename F>
    void carry_over(const float* inputs, const float* outputs, float decay, int64_t n_tokens,
                    const float* before, float* after, const F& see) const {
        for_matrix(P_, width_, [&](auto tile, int64_t p, int64_t n) {
            tile.each([&](vf& x, int r, int v) {
                const int64_t place = (p + r) * state_stride_ + n + v * W;
                x = load(before + place);
                see(x, place);
                x *= decay;
            });
            tile.add(inputs + p, 1, stride_, outputs + n, state_stride_, n_tokens);
            tile.each([&](vf& x, int r, int v) { store(after + (p + r) * state_stride_ + n + v * W, x); });
        });
    }

    void go_back(int64_t k, int64_t c, const Sums& sums) {
        const Chunk& at = chunks_[c];
        const int64_t index = first_chunk_ + c, g = in_.group(first_ + k);
        steps_.compute(in_, i_, at.start, at.size, first_ + k);
        scores_.compute(steps_, at.size, projections_.scores(index, g));
        transpose(x(k), stride_, CHUNK, P_, turned_x_, CHUNK);
        score_gradients(k, at, sums.scores + at.token * CHUNK);
        output_gradients(k, c, projections_.C(index, g), sums.C + at.token * width_);
        input_gradients(k, at, sums.B + at.token * width_);
        written_gradients(k, at, projections_.turned_B(index, g));
        replace_inputs(k, at);
        put_step_gradients(k, at, leave_chunk(k, c, projections_.C(index, g)));
    }

    // dH' = L dH + sum_t L_t dy_t C_t^T; returns <H, L dH>, what the decay through the whole chunk is worth.
    float leave_chunk(int64_t k, int64_t c, const float* C) const {
        const Chunk& at = chunks_[c];
        const float decay = scores_.from_start[at.size - 1];
        const float* before = state(k, c);
        for (int64_t t = 0; t < at.size; t++) scale_row(grad_y(k) + t * stride_, scores_.from_start[t]);
        vf products{};
        carry_over(grad_y(k), C, decay, at.size, grad_state(k), grad_state(k),
                   [&](vf grad, int64_t place) { products += grad * load(before + place); });
        return sum(products) * decay;
    }

    // Gradients of the scores, L_ts dt_s (dy_t x_s), and of log L_ts.
    void score_gradients(int64_t k, const Chunk& at, float* sums) {
        for_matrix<true>(at.size, CHUNK, [&](auto tile, int64_t t, int64_t s) {
            tile.add(grad_y(k) + t * stride_, stride_, 1, turned_x_ + s, CHUNK, P_);
            tile.each([&](vf& x, int r, int v) {
                const int64_t row = t + r, column = s + v * W;
                x = lower(x * load(steps_.dt + column), row, column);
                store(scores_.gradient[row] + column, x * load(scores_.weight[row] + column));
                float* total = sums + row * CHUNK + column;
                store(total, load(total) + x * load(scores_.decay[row] + column));
            });
        });
    }

    // dC_t += L_t H^T dy_t; C_t dC_t is what log L_t is worth.
    void output_gradients(int64_t k, int64_t c, const float* C, float* sums) {
        vf worth[CHUNK]{};
        for_matrix(chunks_[c].size, width_, [&](auto tile, int64_t t, int64_t n) {
            tile.add(grad_y(k) + t * stride_, stride_, 1, state(k, c) + n, state_stride_, P_);
            tile.each([&](vf& x, int r, int v) {
                x *= scores_.from_start[t + r];
                float* total = sums + (t + r) * width_ + n + v * W;
                store(total, load(total) + x);
                worth[t + r] += x * load(C + (t + r) * state_stride_ + n + v * W);
            });
        });
        for (int64_t t = 0; t < chunks_[c].size; t++) worth_from_start_[t] = sum(worth[t]);
    }

    // dB_s += L_s dt_s dH^T x_s.
    void input_gradients(int64_t k, const Chunk& at, float* sums) const {
        for_matrix(at.size, width_, [&](auto tile, int64_t s, int64_t n) {
            tile.add(x(k) + s * stride_, stride_, 1, grad_state(k) + n, state_stride_, P_);
            tile.each([&](vf& x, int r, int v) {
                float* total = sums + (s + r) * width_ + n + v * W;
                store(total, load(total) + x * (scores_.to_end[s + r] * steps_.dt[s + r]));
            });
        });
    }

    // The gradient of u = dt x: L_s dH B_s + sum_t L_ts (C_t B_s) dy_t, with time in the lanes.
    void written_gradients(int64_t k, const Chunk& at, const float* turned_B) {
        std::fill(worth_to_end_, worth_to_end_ + CHUNK, 0.0f);
        std::fill(worth_of_dt_, worth_of_dt_ + CHUNK, 0.0f);
        const auto add_product = [&](float* total, vf x, int64_t p, int64_t s) {
            store(total + s, load(total + s) + x * load(turned_x_ + p * CHUNK + s));
        };
        for_matrix(P_, padded(at.size), [&](auto tile, int64_t p, int64_t s) {
            tile.add(grad_state(k) + p * state_stride_, state_stride_, 1, turned_B + s, CHUNK, N_);
            tile.each([&](vf& x, int r, int v) {
                x *= load(scores_.to_end + s + v * W);
                add_product(worth_to_end_, x * load(steps_.dt + s + v * W), p + r, s + v * W);
            });
            tile.add(grad_y(k) + s * stride_ + p, 1, stride_, scores_.weight[s] + s, CHUNK, at.size - s);
            tile.each([&](vf& x, int r, int v) {
                add_product(worth_of_dt_, x, p + r, s + v * W);
                store(turned_grad_u_ + (p + r) * CHUNK + s + v * W, x);
            });
        });
        transpose(turned_grad_u_, CHUNK, P_, padded(at.size), grad_u_, stride_);
    }

    // The gradient of log a_r: what every decay that token r lies in is worth.
    void log_decay_gradients(int64_t size, float through, float* out) const {
        float earlier[CHUNK];
        float to_end = 0.0f;
        for (int64_t r = 0; r < size; r++) {
            earlier[r] = to_end;
            to_end += worth_to_end_[r];
        }
        alignas(64) float columns[CHUNK]{};  // sums over t >= r of the gradients of log L_ts
        float from_start = 0.0f;
        for (int64_t r = size - 1; r >= 0; r--) {
            float pairs = 0.0f;
            for (int64_t s = 0; s < r; s++) {
                columns[s] += scores_.gradient[r][s];
                pairs += columns[s];
            }
            from_start += worth_from_start_[r];
            out[r] = from_start + pairs + earlier[r] + through;
        }
    }

    void put_step_gradients(int64_t k, const Chunk& at, float through) {
        float grad_log_decay[CHUNK];
        alignas(64) float slope[CHUNK];
        log_decay_gradients(at.size, through, grad_log_decay);
        for (int64_t t = 0; t < CHUNK; t += W) store(slope + t, steps_.slope(in_, t));
        for (int64_t t = at.size - 1; t >= 0; t--) {
            const float grad = (worth_of_dt_[t] + grad_log_decay[t] * steps_.rate[t]) * slope[t];
            const float grad_rate = grad_log_decay[t] * steps_.dt[t];
            const int64_t here = (at.token + t) * in_.n_heads + first_ + k;
            a_.grad_dt[here] = grad;
            if (in_.A_has_tokens) a_.grad_A[here] = grad_rate;
            grad_bias_[k] += grad;
            grad_A_[k] += grad_rate;
        }
    }

    // Puts dx = dt du + D dy in the place of x, and adds to the gradient of D.
    void replace_inputs(int64_t k, const Chunk& at) const {
        float* grad_D = a_.grad_D + row(k) * P_;
        for (int64_t t = 0; t < at.size; t++)
            for_lanes(P_, [&](int64_t p, int n) {
                const int64_t j = t * stride_ + p;
                vf grad = load(grad_u_ + j) * steps_.dt[t];
                if (in_.D) {
                    grad += in_.D_lanes(first_ + k, p, n) * load(grad_y(k) + j);
                    store(grad_D + p, load(grad_D + p, n) + load(grad_y(k) + j) * load(x(k) + j), n);
                }
                store(x(k) + j, grad);
            });
    }

    void put_sums(int64_t k) const {
        if (!in_.A_has_tokens) a_.grad_A[row(k)] = float(grad_A_[k]);
        a_.grad_bias[row(k)] = float(grad_bias_[k]);
        for (int64_t p = 0; p < P_; p++) {
            const float* from = grad_state(k) + p * state_stride_;
            std::copy(from, from + N_, a_.grad_state + (row(k) * P_ + p) * N_);
        }
    }

    const Backward& a_;
    const Inputs& in_;
    const Chunk* chunks_;
    const int64_t first_chunk_, n_chunks_;
    const Projections& projections_;
    const int64_t i_, first_, n_heads_, per_block_, P_, N_, width_;
    const int64_t state_stride_, state_size_, stride_, rows_;
    Scratch memory_;
    float *states_, *x_, *grad_y_, *turned_x_, *grad_u_, *turned_grad_u_;
    std::vector<double> grad_A_, grad_bias_;
    Steps<CHUNK> steps_;
    Scores scores_;
    alignas(64) float worth_from_start_[CHUNK], worth_to_end_[CHUNK], worth_of_dt_[CHUNK];
};

template <typename T>
void run(const Backward& a, int64_t threads) {
    const Inputs& in = a.in;
    const Sequences sequences = in.sequences();
    const Chunks chunks(sequences, CHUNK);
    const Projections projections(in, chunks, threads);
    const int64_t n_chunks = int64_t(chunks.all.size()), n_tokens = sequences.n_tokens();
    const int64_t width = projections.width();
    const int64_t per_group = in.n_heads / in.n_groups;
    const int64_t per_block = std::max((per_group + BLOCKS - 1) / BLOCKS, int64_t(1));
    const int64_t n_blocks = std::max((per_group + per_block - 1) / per_block, int64_t(1));
    const int64_t size = n_tokens * (2 * width + CHUNK);
    Scratch memory(in.n_groups * n_blocks * size);
    const auto sums_of = [&](int64_t g, int64_t b) {
        float* start = memory.get() + (g * n_blocks + b) * size;
        return Sums{start, start + n_tokens * width, start + 2 * n_tokens * width};
    };
    for (int64_t g = 0; g < in.n_groups && per_group == 0; g++) sums_of(g, 0).clear(0, n_tokens, width);
    // A piece of work is some blocks, fewer where threads are many; sums are by block, whatever the pieces.
    const Work work{in.n_sequences * in.n_groups, n_blocks, per_block * chunks.most * in.state_size()};
    const int64_t together = shared_evenly(work, CACHE, threads);
    const int64_t n_pieces = (n_blocks + together - 1) / together;
    for_blocks(in.n_sequences * in.n_groups * n_pieces, threads, [&](int64_t piece) {
        const int64_t g = piece / n_pieces % in.n_groups, i = piece / n_pieces / in.n_groups;
        const int64_t first_block = piece % n_pieces * together;
        const int64_t last_block = std::min(n_blocks, first_block + together);
        const int64_t first = first_block * per_block;
        const int64_t n_heads = std::min(per_group, last_block * per_block) - first;
        Heads<T>(a, chunks, projections, i, g * per_group + first, n_heads, per_block).run([&](int64_t k) {
            return sums_of(g, (first + k) / per_block);
        });
    });
    for_blocks(n_chunks * in.n_groups, threads, [&](int64_t block) {
        const int64_t c = block % n_chunks, g = block / n_chunks;
        std::vector<Sums> blocks;
        for (int64_t b = 0; b < n_blocks; b++) blocks.push_back(sums_of(g, b));
        put_projections<T>(a, projections, chunks.all[c], c, g, blocks);
    });
}

void backward(const Backward& a, int64_t threads) {
    a.in.dtype ? run<bf16>(a, threads) : run<float>(a, threads);
}

}  // namespace
}  // namespace helix::ssd

HELIX_KERNEL(ssd_scan_backward, helix::ssd::Backward, helix::ssd::backward)
