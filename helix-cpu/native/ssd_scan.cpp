// The state-space duality's recurrence: two fused multiply-adds for each element of the state and token.
//
// A tile of the state, 4 of its N by up to 4 vectors of its P, stays in registers through a chunk of tokens.
// It is kept divided by the decay since its segment began, so that a token only adds to it: inputs are
// divided by that decay and outputs multiplied. A segment ends where the decay leaves what float can divide
// by safely; a segment of one token is the plain recurrence, which holds for any decay.

#include "ssd_scan_step.h"

#include "call.h"
#include "matmul.h"
#include "parallel.h"
#include "transpose.h"

namespace helix::ssd {
namespace {

constexpr int CHUNK = 32;  // tokens whose x and y stay in the first-level cache together
constexpr int TILE = 4;  // of the N
constexpr int64_t CACHE = 128 * 1024;  // floats that the states of heads worked on together may take
constexpr double LEAST_DECAY = 1.0 / 65536;

// B and C of each group as the tiles read them: of a chunk, for each tile the 4 numbers of B and the 4 of C
// of each token.
class Projections {
   public:
    Projections(const Inputs& in, const Chunks& chunks, int64_t threads)
        : n_tiles_((in.d_state + TILE - 1) / TILE),
          n_tokens_(in.sequences().n_tokens()),
          memory_(in.n_groups * n_tokens_ * n_tiles_ * 2 * TILE),
          data_(memory_.get()) {
        for_blocks(int64_t(chunks.all.size()), threads, [&](int64_t block) {
            for (int64_t g = 0; g < in.n_groups; g++)
                in.dtype ? pack<bf16>(in, chunks.all[block], g) : pack<float>(in, chunks.all[block], g);
        });
    }

    int64_t n_tiles() const { return n_tiles_; }
    float* tile(const Chunk& chunk, int64_t g, int64_t n) const {
        return data_ + ((g * n_tokens_ + chunk.token) * n_tiles_ + n * chunk.size) * 2 * TILE;
    }

   private:
    template <typename T>
    void pack(const Inputs& in, const Chunk& chunk, int64_t g) {
        for (int64_t t = 0; t < chunk.size; t++) {
            const T* B = in.B_at<T>(chunk.sequence, chunk.start + t, g);
            const T* C = in.C_at<T>(chunk.sequence, chunk.start + t, g);
            for (int64_t n = 0; n < n_tiles_; n++) {
                float* out = tile(chunk, g, n) + t * 2 * TILE;
                for (int64_t k = 0; k < TILE; k++) {
                    const bool inside = n * TILE + k < in.d_state;
                    out[k] = inside ? get(B + n * TILE + k) : 0.0f;
                    out[TILE + k] = inside ? get(C + n * TILE + k) : 0.0f;
                }
            }
        }
    }

    int64_t n_tiles_, n_tokens_;
    Scratch memory_;
    float* data_;
};

// Where in a chunk each segment begins, and the factor that brings the state before it to its first token.
struct Segments {
    int64_t n;
    int64_t start[CHUNK + 1];
    float carry[CHUNK];
    float input[CHUNK], output[CHUNK];  // what multiplies x B^T and h C of each token

    // `decay` is that since the last segment began; it is brought to this chunk's end.
    void set(const Steps<CHUNK>& steps, int64_t n_tokens, double& decay) {
        n = 0;
        for (int64_t t = 0; t < n_tokens; t++) {
            decay *= steps.decay[t];
            if (t == 0 || !(decay >= LEAST_DECAY && decay <= 1 / LEAST_DECAY)) {
                start[n] = t;
                carry[n++] = float(decay);
                decay = 1.0;
            }
            input[t] = float(steps.dt[t] / decay);
            output[t] = float(decay);
        }
        start[n] = n_tokens;
    }
};

// Takes 4 rows of V vectors of the state `h` through a chunk, and adds what they give to the outputs `y`.
template <int V>
void scan_tile(const Segments& segments, const float* BC, const float* x, float* h, float* y,
               int64_t stride) {
    vf state[TILE][V];
    for (int n = 0; n < TILE; n++)
        for (int v = 0; v < V; v++) state[n][v] = load(h + n * stride + v * W);
    for (int64_t s = 0; s < segments.n; s++) {
        const vf carry = splat(segments.carry[s]);
        for (int n = 0; n < TILE; n++)
            for (int v = 0; v < V; v++) state[n][v] *= carry;
        for (int64_t t = segments.start[s]; t < segments.start[s + 1]; t++) {
            vf inputs[V], outputs[V];
            for (int v = 0; v < V; v++) inputs[v] = load(x + t * stride + v * W);
            for (int v = 0; v < V; v++) outputs[v] = load(y + t * stride + v * W);
#pragma GCC unroll 4
            for (int n = 0; n < TILE; n++) {
                const vf B = splat(BC[t * 2 * TILE + n]), C = splat(BC[t * 2 * TILE + TILE + n]);
#pragma GCC unroll 4
                for (int v = 0; v < V; v++) {
                    state[n][v] += B * inputs[v];
                    outputs[v] += C * state[n][v];
                }
            }
            for (int v = 0; v < V; v++) store(y + t * stride + v * W, outputs[v]);
        }
    }
    for (int n = 0; n < TILE; n++)
        for (int v = 0; v < V; v++) store(h + n * stride + v * W, state[n][v]);
}

// Takes the whole state (N, P) of a head through a chunk; calls prefetch(n) before each of the tiles in N.
template <typename F>
void scan_chunk(const Segments& segments, const Projections& projections, const Chunk& chunk, int64_t g,
                const float* x, float* state, float* y, int64_t stride, const F& prefetch) {
    for (int64_t p = 0; p < stride;) {
        const int64_t left = (stride - p) / W;
        const int vectors = left >= MAX_VECTORS ? MAX_VECTORS : left >= 2 ? 2 : 1;
        const auto scan = vectors == MAX_VECTORS ? scan_tile<MAX_VECTORS>
                          : vectors == 2         ? scan_tile<2>
                                                 : scan_tile<1>;
        for (int64_t n = 0; n < projections.n_tiles(); n++) {
            float* tile = state + n * TILE * stride + p;
            if (p == 0) prefetch(n);
            scan(segments, projections.tile(chunk, g, n), x + p, tile, y + p, stride);
        }
        p += vectors * W;
    }
}

// Some heads of one sequence, from their first states to their last. They go through each chunk one after the
// other, so that inputs and outputs, which lie (B, L, H, P), are read and written in longer runs.
template <typename T>
class Heads {
   public:
    Heads(const Forward& a, const Projections& projections, int64_t sequence, int64_t first, int64_t n_heads)
        : a_(a),
          in_(a.in),
          projections_(projections),
          i_(sequence),
          first_(first),
          n_heads_(n_heads),
          stride_(padded(in_.head_dim)),
          state_size_(projections.n_tiles() * TILE * stride_),
          memory_(n_heads * (state_size_ + 2 * CHUNK * stride_)),
          states_(memory_.get()),
          x_(states_ + n_heads * state_size_),
          y_(x_ + n_heads * CHUNK * stride_),
          decays_(n_heads, 1.0),
          segments_(n_heads) {
        std::fill(states_, y_ + n_heads * CHUNK * stride_, 0.0f);
    }

    void run(const Chunk* begin, const Chunk* end) {
        const int64_t N = in_.d_state;
        for (int64_t k = 0; k < n_heads_ && in_.initial_state; k++)
            transpose(in_.initial_state + offset(k), N, in_.head_dim, N, state(k), stride_);
        for (const Chunk* chunk = begin; chunk < end; chunk++)
            advance(*chunk, chunk + 1 < end ? chunk[1] : Chunk{i_, 0, 0, 0});
        for (int64_t k = 0; k < n_heads_; k++) {
            for (int64_t j = 0; j < state_size_; j++) state(k)[j] *= float(decays_[k]);
            transpose(state(k), stride_, N, in_.head_dim, a_.final_state + offset(k), N);
        }
    }

   private:
    int64_t offset(int64_t k) const { return (i_ * in_.n_heads + first_ + k) * in_.state_size(); }
    float* state(int64_t k) const { return states_ + k * state_size_; }
    float* x_at(int64_t k, int64_t t) const { return x_ + (k * CHUNK + t) * stride_; }
    float* y_at(int64_t k, int64_t t) const { return y_ + (k * CHUNK + t) * stride_; }
    const T* in_at(int64_t k, int64_t t) const { return in_.x_at<T>(i_, t, first_ + k); }
    T* out_at(int64_t k, int64_t t) const { return a_.y_at<T>(i_, t, first_ + k); }

    void advance(const Chunk& chunk, const Chunk& next) {
        Steps<CHUNK> steps;
        for (int64_t k = 0; k < n_heads_; k++) {
            steps.compute(in_, i_, chunk.start, chunk.size, first_ + k);
            segments_[k].set(steps, chunk.size, decays_[k]);
        }
        for (int64_t t = 0; t < chunk.size; t++)
            for (int64_t k = 0; k < n_heads_; k++) take_inputs(k, t, in_at(k, chunk.start + t));
        std::fill(y_, y_ + n_heads_ * CHUNK * stride_, 0.0f);
        const int64_t n_parts = projections_.n_tiles() * n_heads_;
        for (int64_t k = 0; k < n_heads_; k++) {
            const auto fetch = [&](int64_t n) { prefetch(next, k * projections_.n_tiles() + n, n_parts); };
            const int64_t g = in_.group(first_ + k);
            scan_chunk(segments_[k], projections_, chunk, g, x_at(k, 0), state(k), y_at(k, 0), stride_,
                       fetch);
        }
        for (int64_t t = 0; t < chunk.size; t++)
            for (int64_t k = 0; k < n_heads_; k++)
                put_outputs(k, t, in_at(k, chunk.start + t), out_at(k, chunk.start + t));
    }

    void take_inputs(int64_t k, int64_t t, const T* x) {
        for_lanes(in_.head_dim,
                  [&](int64_t p, int n) { store(x_at(k, t) + p, load(x + p, n) * segments_[k].input[t]); });
    }

    void put_outputs(int64_t k, int64_t t, const T* x, T* y) {
        for_lanes(in_.head_dim, [&](int64_t p, int n) {
            vf out = load(y_at(k, t) + p) * segments_[k].output[t];
            if (in_.D) out += in_.D_lanes(first_ + k, p, n) * load(x + p, n);
            store(y + p, out, n);
        });
    }

    // Fetches a part of the next chunk's inputs: rows lie in pages of their own, which the processor does not
    // foresee.
    void prefetch(const Chunk& next, int64_t part, int64_t n_parts) const {
        for (int64_t t = part * next.size / n_parts; t < (part + 1) * next.size / n_parts; t++)
            for (int64_t p = 0; p < n_heads_ * in_.head_dim; p += 64 / int64_t(sizeof(T)))
                __builtin_prefetch(in_at(0, next.start + t) + p, 0, 2);
    }

    const Forward& a_;
    const Inputs& in_;
    const Projections& projections_;
    const int64_t i_, first_, n_heads_, stride_, state_size_;
    Scratch memory_;
    float *states_, *x_, *y_;
    std::vector<double> decays_;
    std::vector<Segments> segments_;
};

template <typename T>
void run(const Forward& a, int64_t threads) {
    const Inputs& in = a.in;
    if (in.longest() <= FEW_TOKENS) {
        for_blocks(in.n_sequences * in.n_heads, threads,
                   [&](int64_t block) { step<T>(a, block / in.n_heads, block % in.n_heads); });
        return;
    }
    const Chunks chunks(in.sequences(), CHUNK);
    const Projections projections(in, chunks, threads);
    const int64_t width = shared_evenly({in.n_sequences, in.n_heads, in.state_size()}, CACHE, threads);
    const int64_t per_sequence = (in.n_heads + width - 1) / width;
    for_blocks(in.n_sequences * per_sequence, threads, [&](int64_t block) {
        const int64_t i = block / per_sequence, first = block % per_sequence * width;
        const Chunk* all = chunks.all.data();
        Heads<T>(a, projections, i, first, std::min(width, in.n_heads - first))
            .run(all + chunks.first[i], all + chunks.first[i + 1]);
    });
}

void forward(const Forward& a, int64_t threads) {
    a.in.dtype ? run<bf16>(a, threads) : run<float>(a, threads);
}

}  // namespace
}  // namespace helix::ssd

HELIX_KERNEL(ssd_scan, helix::ssd::Forward, helix::ssd::forward)
