// What the heads of a group share in the gradient of the state-space duality: B, C and their products in each
// chunk, the sums of their gradients, and how those become the gradients of B and C.

#pragma once

#include "call.h"
#include "matmul.h"
#include "parallel.h"
#include "ssd_scan.h"
#include "transpose.h"

namespace helix::ssd {

constexpr int CHUNK = 64;  // tokens worked on together: more of them would cost more in products of pairs

struct Backward {
    const void* grad_y;             // (B, L, H, P)
    const float* grad_final_state;  // (n, H, P, N) or null
    void* grad_x;                   // (B, L, H, P)
    float* grad_dt;                 // (B, L, H)
    float* grad_A;                  // (n, H), or (B, L, H) where A is
    void *grad_B, *grad_C;          // (B, L, G, N)
    float* grad_D;                  // (n, H, P)
    float* grad_bias;               // (n, H)
    float* grad_state;              // (n, H, P, N)
    Inputs in;
};

// The distance of rows of n floats of which a product reads a block of columns: an odd number of cache lines,
// or rows a power of two apart would share few of the cache's sets.
inline int64_t spread(int64_t n) {
    constexpr int64_t LINE = 16;
    return ((n + LINE - 1) / LINE | 1) * LINE;
}

// What lies on the diagonal of a matrix or below it. Above it a product may overflow, and 0 times that is a
// NaN.
inline vf lower(vf x, int64_t row, int64_t column) {
    return select(lane_numbers() <= int(row - column), x, vf{});
}

// B and C of each chunk and group as floats, in rows of whole vectors, and what all heads make of them.
class Projections {
   public:
    Projections(const Inputs& in, const Chunks& chunks, int64_t threads)
        : width_(padded(in.d_state)),
          stride_(spread(in.d_state)),
          size_(2 * CHUNK * stride_ + in.d_state * CHUNK + CHUNK * CHUNK),
          n_chunks_(int64_t(chunks.all.size())),
          memory_(n_chunks_ * in.n_groups * size_),
          data_(memory_.get()) {
        for_blocks(n_chunks_ * in.n_groups, threads, [&](int64_t block) {
            const int64_t c = block % n_chunks_, g = block / n_chunks_;
            in.dtype ? prepare<bf16>(in, chunks.all[c], c, g) : prepare<float>(in, chunks.all[c], c, g);
        });
    }

    int64_t width() const { return width_; }
    int64_t stride() const { return stride_; }
    // B and C (CHUNK, N) in rows `stride` apart, B transposed (N, CHUNK), the scores C_t B_s (CHUNK, CHUNK).
    float* B(int64_t chunk, int64_t g) const { return data_ + (g * n_chunks_ + chunk) * size_; }
    float* C(int64_t chunk, int64_t g) const { return B(chunk, g) + CHUNK * stride_; }
    float* turned_B(int64_t chunk, int64_t g) const { return C(chunk, g) + CHUNK * stride_; }
    float* scores(int64_t chunk, int64_t g) const { return B(chunk, g) + size_ - CHUNK * CHUNK; }

   private:
    template <typename T>
    void prepare(const Inputs& in, const Chunk& chunk, int64_t c, int64_t g) {
        std::fill(B(c, g), B(c, g) + size_, 0.0f);
        for (int64_t t = 0; t < chunk.size; t++) {
            const T* from_B = in.B_at<T>(chunk.sequence, chunk.start + t, g);
            const T* from_C = in.C_at<T>(chunk.sequence, chunk.start + t, g);
            for_lanes(in.d_state, [&](int64_t k, int n) {
                store(B(c, g) + t * stride_ + k, load(from_B + k, n));
                store(C(c, g) + t * stride_ + k, load(from_C + k, n));
            });
        }
        transpose(B(c, g), stride_, chunk.size, in.d_state, turned_B(c, g), CHUNK);
        for_matrix<true>(chunk.size, CHUNK, [&](auto tile, int64_t t, int64_t s) {
            tile.add(C(c, g) + t * stride_, stride_, 1, turned_B(c, g) + s, CHUNK, in.d_state);
            tile.each([&](vf& x, int r, int v) {
                store(scores(c, g) + (t + r) * CHUNK + s + v * W, lower(x, t + r, s + v * W));
            });
        });
    }

    int64_t width_, stride_, size_, n_chunks_;
    Scratch memory_;
    float* data_;
};

// What the heads of a block add up to, for each token of a group: gradients of B and C where they meet
// states, and of the scores C_t B_s.
struct Sums {
    float *B, *C, *scores;  // (tokens, width), (tokens, width), (tokens, CHUNK)

    void clear(int64_t start, int64_t n, int64_t width) const {
        std::fill_n(B + start * width, n * width, 0.0f);
        std::fill_n(C + start * width, n * width, 0.0f);
        std::fill_n(scores + start * CHUNK, n * CHUNK, 0.0f);
    }
};

// Gradients of B and C in a chunk from those that blocks of heads added up: the blocks' sums in their order,
// and dC_t += sum_s dG_ts B_s, dB_s += sum_t dG_ts C_t with dG the gradient of the scores.
template <typename T>
void put_projections(const Backward& a, const Projections& projections, const Chunk& at, int64_t index,
                     int64_t g, const std::vector<Sums>& blocks) {
    const Inputs& in = a.in;
    const int64_t width = projections.width();
    const Sums first{blocks[0].B + at.token * width, blocks[0].C + at.token * width,
                     blocks[0].scores + at.token * CHUNK};
    const auto collect = [](float* into, const float* from, int64_t n) {
        for (int64_t k = 0; k < n; k += W) store(into + k, load(into + k) + load(from + k));
    };
    for (size_t b = 1; b < blocks.size(); b++) {
        collect(first.B, blocks[b].B + at.token * width, at.size * width);
        collect(first.C, blocks[b].C + at.token * width, at.size * width);
        collect(first.scores, blocks[b].scores + at.token * CHUNK, at.size * CHUNK);
    }
    const auto put = [&](void* out, const float* sums, const float* other, int64_t row_stride,
                         int64_t stride) {
        T* first_out = static_cast<T*>(out) + (at.token * in.n_groups + g) * in.d_state;
        for_matrix(at.size, width, [&](auto tile, int64_t t, int64_t n) {
            tile.each([&](vf& x, int r, int v) { x = load(sums + (t + r) * width + n + v * W); });
            tile.add(first.scores + t * row_stride, row_stride, stride, other + n, projections.stride(),
                     at.size);
            tile.each([&](vf& x, int r, int v) {
                const int64_t lane = n + v * W, lanes = std::min(int64_t(W), in.d_state - lane);
                store(first_out + (t + r) * in.n_groups * in.d_state + lane, x, int(lanes));
            });
        });
    };
    put(a.grad_C, first.C, projections.B(index, g), CHUNK, 1);
    put(a.grad_B, first.B, projections.C(index, g), 1, CHUNK);
}

}  // namespace helix::ssd
