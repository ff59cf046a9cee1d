// The selective scan, backward.
//
// Chunks of time are taken from the last to the first: forward once more, from the state saved before the
// chunk, then backward. Channels go in slabs; what is summed over channels or sequences is summed in an order
// that the shapes alone give, so that results do not depend on the threads.

#include "parallel.h"
#include "selective_scan_backward.h"

namespace helix::selective_scan {
namespace {

struct Backward {
    Inputs in;
    const void* grad_y;             // (B, L, D) or null
    const float* grad_final_state;  // (n, D, N) or null
    const float* states;            // as `Forward` has them; not of packed sequences
    void *grad_u, *grad_delta;      // (B, L, D)
    void* grad_z;                   // (B, L, D), or null where z is
    float* grad_A;                  // (D, N)
    float *grad_B, *grad_C;         // (B, L, G, N)
    float *grad_D, *grad_bias;      // (D)
    float* grad_initial_state;      // (n, D, N)
};

// Where one slab of some sequences leaves its sums.
struct Sums {
    float *A, *D, *bias;  // (D, N), (D), (D)
    float *B, *C;         // (B, L, G, N)
};

// One slab of channels through some sequences.
template <typename T>
class Item {
   public:
    Item(const Backward& a, const Slab& slab, const Sums& sums)
        : a_(a),
          in_(a.in),
          at_{a.in, slab, 0},
          n_blocks_(slab.n_blocks()),
          sums_(sums),
          m_(a.in.d_state, slab.n_blocks()) {}

    void run(int64_t first_sequence, int64_t last_sequence) {
        for (int64_t k = 0; k < n_blocks_; k++) {
            const vf largest = load_decay_rates(in_, at_.channel(k), at_.slab.lanes(k), states(m_.A, k));
            store(m_.largest_A + k * W, largest);
        }
        std::fill_n(m_.grad_A, n_blocks_ * in_.d_state * W, 0.0f);
        std::fill_n(m_.grad_D, n_blocks_ * W, 0.0f);
        std::fill_n(m_.grad_bias, n_blocks_ * W, 0.0f);
        for (at_.sequence = first_sequence; at_.sequence < last_sequence; at_.sequence++) run_sequence();
        for (int64_t k = 0; k < n_blocks_; k++) {
            const int64_t c = at_.channel(k);
            store_states(states(m_.grad_A, k), in_.d_state, at_.slab.lanes(k), sums_.A + c * in_.d_state);
            store(sums_.D + c, load(m_.grad_D + k * W), at_.slab.lanes(k));
            store(sums_.bias + c, load(m_.grad_bias + k * W), at_.slab.lanes(k));
        }
    }

   private:
    float* states(float* all, int64_t k) const { return all + k * in_.d_state * W; }
    float* steps(Part part) const { return m_.steps + part * STEPS * W; }
    int64_t states_size() const { return n_blocks_ * in_.d_state * W; }

    void run_sequence() {
        for (int64_t k = 0; k < n_blocks_; k++) {
            load_rows(in_.initial_state, k, m_.initial);
            load_rows(a_.grad_final_state, k, m_.G);
        }
        const int64_t seq_len = at_.seq_len(), n_saved = seq_len > 0 ? (seq_len - 1) / STEPS : 0;
        Scratch found(in_.bounds ? n_saved * states_size() : 0);
        if (in_.bounds) find_states(n_saved, found.get());
        for (int64_t i = n_saved; i >= 0 && seq_len > 0; i--) {
            const float* before = in_.bounds ? found.get() + (i - 1) * states_size() : nullptr;
            found_ = i == 0 ? m_.initial : before;
            run_chunk(i * STEPS, int(std::min<int64_t>(STEPS, seq_len - i * STEPS)));
        }
        for (int64_t k = 0; k < n_blocks_; k++) {
            float* out = a_.grad_initial_state + at_.state_row(k);
            store_states(states(m_.G, k), in_.d_state, at_.slab.lanes(k), out);
        }
    }

    void load_rows(const float* rows, int64_t k, float* out) {
        const float* row = rows ? rows + at_.state_row(k) : nullptr;
        load_states(row, in_.d_state, at_.slab.lanes(k), 1.0f, states(out, k));
    }

    // Goes forward through the sequence for the states after each of n chunks (n, K, N, W).
    void find_states(int64_t n, float* out) {
        for (int64_t i = 0; i < n; i++, out += states_size()) {
            std::copy_n(i ? out - states_size() : m_.initial, states_size(), out);
            const Chunk chunk = at_.chunk(i * STEPS, STEPS, m_.B, m_.C);
            for (int64_t k = 0; k < n_blocks_; k++) {
                with_lanes(at_.slab.lanes(k), [&](auto lanes) { make_steps(i * STEPS, k, STEPS, lanes); });
                advance<false>(own(chunk), states(m_.A, k), in_.d_state, states(out, k));
            }
        }
    }

    Chunk own(Chunk chunk) const {
        chunk.dt = steps(DT), chunk.x = steps(X), chunk.y = steps(Y), chunk.wide = wide_;
        return chunk;
    }

    void run_chunk(int64_t t, int n) {
        const Chunk chunk = at_.chunk(t, n, m_.B, m_.C);
        for_tiles([&](auto, int64_t, int tile) { std::fill_n(sums(tile), n * W, 0.0f); });
        for (int64_t k = 0; k < n_blocks_; k++) {
            with_lanes(at_.slab.lanes(k), [&](auto lanes) {
                begin(t, k, n, lanes);
                for_tiles([&](auto N, int64_t j, int tile) {
                    run_states<N>(own(chunk), t, k, j, tile, lanes);
                });
                finish(t, k, n, lanes);
            });
        }
        const int64_t row = in_.n_groups * in_.d_state;
        const int64_t to = at_.token(t) * row + at_.slab.group * in_.d_state;
        for_tiles([&](auto N, int64_t j, int tile) {
            sum_lanes<N>(sums(tile), n, sums_.B + to + j, sums_.C + to + j, row);
        });
    }

    float* sums(int tile) const { return m_.sums + tile * STEPS * W; }

    // Calls f(N, j, tile) for tile after tile of N states, from state j on.
    template <typename F>
    void for_tiles(const F& f) const {
        int64_t j = 0;
        int tile = 0;
        for (; j + BACK <= in_.d_state; j += BACK) f(std::integral_constant<int, BACK>(), j, tile++);
        for (; j < in_.d_state; j++) f(std::integral_constant<int, 1>(), j, tile++);
    }

    // Takes a tile of states of one vector of channels forward and back through a chunk.
    template <int N, typename Lanes>
    void run_states(const Chunk& chunk, int64_t t, int64_t k, int64_t j, int tile, Lanes lanes) {
        const float* A = states(m_.A, k) + j * W;
        vf h[N];
        load_before(t, k, j, lanes, h);
        const Fetch forth = wanted(t, k, 2 * tile), back = wanted(t, k, 2 * tile + 1);
        if (chunk.wide)
            advance_tile<N, true, true, true>(chunk, A, j, h, forth, m_.kept);
        else
            advance_tile<N, false, true, true>(chunk, A, j, h, forth, m_.kept);
        go_back<N>(chunk, A, j, m_.kept,
                   Going{states(m_.G, k) + j * W, states(m_.grad_A, k) + j * W, sums(tile), steps(GRAD),
                         steps(GRAD_X), steps(GRAD_DT), back});
    }

    // Loads states from j on before the chunk, and asks for those of the vector of channels that is next.
    template <int N, typename Lanes>
    void load_before(int64_t t, int64_t k, int64_t j, Lanes lanes, vf (&h)[N]) const {
        if (found_) {
            for (int i = 0; i < N; i++) h[i] = load(found_ + (k * in_.d_state + j + i) * W);
            return;
        }
        const int64_t row = in_.channels_per_group(), chunk = in_.n_sequences * in_.d_model * in_.d_state;
        const int64_t next = is_last(k) ? -chunk - k * W : W;
        const float* saved = a_.states + at_.saved_state(t / STEPS - 1, k) + j * row;
        for (int i = 0; i < N; i++) {
            h[i] = load(saved + i * row, lanes);
            __builtin_prefetch(saved + i * row + next);
        }
    }

    bool is_last(int64_t k) const { return k + 1 == n_blocks_; }

    // Rows that will be wanted: those that the next vector of channels reads, here or in the chunk before,
    // then those that this one writes. Each way of each tile of states asks for those of one tensor.
    Fetch wanted(int64_t t, int64_t k, int i) const {
        const auto next = [&](const T* row, int64_t time_stride) {
            return rows(row + (is_last(k) ? -STEPS * time_stride - k * W : W), time_stride);
        };
        const auto output = [&](const void* data) {
            return rows(static_cast<const T*>(data) + at_.output(t, k), in_.d_model);
        };
        if (i == 0) return next(at_.u(t, k), in_.u_time);
        if (i == 1) return next(at_.delta(t, k), in_.delta_time);
        if (i == 2 && a_.grad_y)
            return next(static_cast<const T*>(a_.grad_y) + at_.output(t, k), in_.d_model);
        if (i == 3 && in_.z) return next(at_.z(t, k), in_.z_time);
        if (i == 4) return output(a_.grad_u);
        if (i == 5) return output(a_.grad_delta);
        if (i == 6 && a_.grad_z) return output(a_.grad_z);
        return Fetch{steps(DT), 0};
    }

    static Fetch rows(const T* first, int64_t time_stride) {
        return Fetch{first, time_stride * int64_t(sizeof(T))};
    }

    template <typename Lanes>
    void make_steps(int64_t t, int64_t k, int n, Lanes lanes) {
        const T *u = at_.u(t, k), *delta = at_.delta(t, k);
        float *dt = steps(DT), *x = steps(X), *exps = steps(EXPS);
        const vf bias = load_channels(in_.delta_bias, at_.channel(k), lanes);
        const vf largest = step_sizes(delta, in_.delta_time, bias, in_.softplus, n, lanes, dt, exps);
        for (int64_t i = 0, stride = in_.u_time; i < n; i++)
            store(x + i * W, load(dt + i * W) * load(u + i * stride, lanes));
        wide_ = is_wide(largest, load(m_.largest_A + k * W));
    }

    // Makes all that the way back needs of each step.
    template <typename Lanes>
    void begin(int64_t t, int64_t k, int n, Lanes lanes) {
        make_steps(t, k, n, lanes);
        make_slopes(t, k, n, lanes);
        make_output_gradients(t, k, n, lanes);
        for (Part sums : {GRAD_X, GRAD_DT, Y}) std::fill_n(steps(sums), n * W, 0.0f);
    }

    // d dt / d delta: 1, or the sigmoid of delta + bias.
    template <typename Lanes>
    void make_slopes(int64_t t, int64_t k, int n, Lanes lanes) {
        float* slope = steps(SLOPE);
        if (!in_.softplus) {
            std::fill_n(slope, STEPS * W, 1.0f);
            return;
        }
        const T* delta = at_.delta(t, k);
        const float* exps = steps(EXPS);
        const vf bias = load_channels(in_.delta_bias, at_.channel(k), lanes);
        for (int64_t i = 0, stride = in_.delta_time; i < n; i++)
            store(slope + i * W, sigmoid(load(delta + i * stride, lanes) + bias, load(exps + i * W)));
    }

    // The gradient of C h + D u, and what the gate's is a multiple of.
    template <typename Lanes>
    void make_output_gradients(int64_t t, int64_t k, int n, Lanes lanes) {
        float *g = steps(GRAD), *gate_slope = steps(GATE);
        if (a_.grad_y == nullptr) {
            std::fill_n(g, STEPS * W, 0.0f);
            std::fill_n(gate_slope, STEPS * W, 0.0f);
            return;
        }
        const T* grad_y = static_cast<const T*>(a_.grad_y) + at_.output(t, k);
        for (int64_t i = 0, stride = in_.d_model; i < n; i++)
            store(g + i * W, load(grad_y + i * stride, lanes));
        if (in_.z == nullptr) return;
        const T* z = at_.z(t, k);
        for (int64_t i = 0, stride = in_.z_time; i < n; i++) {
            const vf gate = load(z + i * stride, lanes), s = sigmoid(gate), grad = load(g + i * W);
            store(g + i * W, grad * (gate * s));
            store(gate_slope + i * W, grad * silu_slope(gate, s));
        }
    }

    // Makes the gradients of u, delta and z from the sums over the states.
    template <typename Lanes>
    void finish(int64_t t, int64_t k, int n, Lanes lanes) {
        const T* u_rows = at_.u(t, k);
        T* grad_u = static_cast<T*>(a_.grad_u) + at_.output(t, k);
        T* grad_delta = static_cast<T*>(a_.grad_delta) + at_.output(t, k);
        const float *g = steps(GRAD), *slope = steps(SLOPE), *dt = steps(DT);
        const float *grad_x = steps(GRAD_X), *grad_dt = steps(GRAD_DT);
        const vf skip = load_channels(in_.D, at_.channel(k), lanes);
        const int64_t u_time = in_.u_time, time = in_.d_model;
        vf grad_D{}, grad_bias{};
        for (int i = 0; i < n; i++) {
            const int s = i * W;
            const vf u = load(u_rows + i * u_time, lanes);
            const vf raw = (load(grad_dt + s) * LN_2 + load(grad_x + s) * u) * load(slope + s);
            store(grad_delta + i * time, raw, lanes);
            store(grad_u + i * time, load(dt + s) * load(grad_x + s) + skip * load(g + s), lanes);
            grad_D += load(g + s) * u;
            grad_bias += raw;
        }
        store(m_.grad_D + k * W, load(m_.grad_D + k * W) + grad_D);
        store(m_.grad_bias + k * W, load(m_.grad_bias + k * W) + grad_bias);
        if (a_.grad_z) finish_gate(t, k, n, lanes);
    }

    template <typename Lanes>
    void finish_gate(int64_t t, int64_t k, int n, Lanes lanes) {
        const T* u = at_.u(t, k);
        T* grad_z = static_cast<T*>(a_.grad_z) + at_.output(t, k);
        const float *y = steps(Y), *gate_slope = steps(GATE);
        const vf skip = load_channels(in_.D, at_.channel(k), lanes);
        for (int64_t i = 0, u_time = in_.u_time, time = in_.d_model; i < n; i++) {
            const vf before_gate = load(y + i * W) + skip * load(u + i * u_time, lanes);
            store(grad_z + i * time, before_gate * load(gate_slope + i * W), lanes);
        }
    }

    const Backward& a_;
    const Inputs& in_;
    View<T> at_;
    const int64_t n_blocks_;
    const Sums sums_;
    Memory m_;
    bool wide_ = false;
    const float* found_ = nullptr;  // states (K, N, W) before the chunk at hand; null: they lie in `states`
};

// out[i] = the sum of parts[p][i] over p, in order.
void add_up(const float* parts, int64_t n_parts, int64_t size, float* out, int64_t threads) {
    constexpr int64_t PIECE = 1 << 14;
    for_blocks((size + PIECE - 1) / PIECE, threads, [=](int64_t piece) {
        const int64_t first = piece * PIECE, last = std::min(first + PIECE, size);
        std::copy(parts + first, parts + last, out + first);
        for (int64_t p = 1; p < n_parts; p++)
            for (int64_t i = first; i < last; i++) out[i] += parts[p * size + i];
    });
}

// Sums that several items have a part in: (parts, size), or the result itself where there is but one part.
class Parts {
   public:
    Parts(int64_t n_parts, int64_t size, float* out)
        : n_parts_(n_parts), size_(size), out_(out), memory_(n_parts > 1 ? n_parts * size : 0) {}

    float* operator[](int64_t part) { return n_parts_ > 1 ? memory_.get() + part * size_ : out_; }
    void add_up_all(int64_t threads) {
        if (n_parts_ > 1) return add_up(memory_.get(), n_parts_, size_, out_, threads);
        if (n_parts_ == 0) std::fill_n(out_, size_, 0.0f);
    }

   private:
    const int64_t n_parts_, size_;
    float* const out_;
    Scratch memory_;
};

// Slabs for a few threads, but no smaller: the fewer, the more of a page of memory is used at once, and the
// seldomer sums over lanes are made.
Slabs slabs_of(const Inputs& in, int64_t n_spans) {
    constexpr int64_t FEW = 4, MIN_BLOCKS = MAX_BLOCKS / 4;
    const int64_t size = in.channels_per_group(), blocks = (size + W - 1) / W;
    const int64_t items = std::max<int64_t>(n_spans * in.n_groups, 1), wanted = (FEW + items - 1) / items;
    return Slabs{in.n_groups, size, std::clamp((blocks + wanted - 1) / wanted, MIN_BLOCKS, MAX_BLOCKS)};
}

template <typename T>
void run_as(const Backward& a, int64_t threads) {
    constexpr int64_t MAX_SPANS = 16, WORTH_A_FORK = 1 << 15;
    const Inputs& in = a.in;
    if (in.n_elements() < WORTH_A_FORK) threads = 1;
    const int64_t n_spans = std::min(in.n_sequences, MAX_SPANS), n_tokens = in.sequences().n_tokens();
    const Slabs slabs = slabs_of(in, n_spans);
    const int64_t n_slabs = slabs.count(), projection = n_tokens * in.n_groups * in.d_state;
    Parts A(n_spans, in.d_model * in.d_state, a.grad_A), D(n_spans, in.d_model, a.grad_D);
    Parts bias(n_spans, in.d_model, a.grad_bias);
    Parts B(slabs.per_group(), projection, a.grad_B), C(slabs.per_group(), projection, a.grad_C);
    for_blocks(n_spans * n_slabs, threads, [&](int64_t i) {
        const int64_t span = i / n_slabs, slab = i % n_slabs, part = slab % slabs.per_group();
        Item<T>(a, slabs[slab], Sums{A[span], D[span], bias[span], B[part], C[part]})
            .run(span * in.n_sequences / n_spans, (span + 1) * in.n_sequences / n_spans);
    });
    for (Parts* parts : {&A, &D, &bias, &B, &C}) parts->add_up_all(threads);
}

void run(const Backward& a, int64_t threads) {
    if (a.in.dtype == 0)
        run_as<float>(a, threads);
    else
        run_as<bf16>(a, threads);
}

}  // namespace
}  // namespace helix::selective_scan

HELIX_KERNEL(selective_scan_backward, helix::selective_scan::Backward, helix::selective_scan::run)
