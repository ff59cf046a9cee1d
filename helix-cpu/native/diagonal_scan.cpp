// The diagonal scan h_t = a_t h_{t-1} + b_t over real or complex channels, and its gradient.
//
// Channels lie in the lanes. Time is walked a few steps at once, all channels of a block for each few, so
// that memory is read in long runs; the states wait in a small buffer meanwhile. No lane meets another, so
// that results do not depend on where blocks begin.

#include "call.h"
#include "complex.h"
#include "parallel.h"
#include "sequences.h"

namespace helix {
namespace {

struct Forward {
    const void* a;          // (B, L, D), or (D) of float or complex64, with strides of 0
    const void* b;          // (B, L, D)
    const void* state;      // (n, D) of float or complex64, or null
    const int64_t* bounds;  // (n + 1) or null
    void* h;                // (B, L, D)
    void* final_state;      // (n, D) of float or complex64
    int64_t n_sequences, seq_len, d_model, dtype, constant;
    int64_t a_batch_stride, a_time_stride, b_batch_stride, b_time_stride;
};

struct Backward {
    const void* a;
    const void* b;
    const void* state;
    const int64_t* bounds;
    const void* grad_h;      // (B, L, D) or null
    const void* grad_final;  // (n, D) of float or complex64, or null
    void* grad_a;            // as a, dense
    void* grad_b;            // (B, L, D)
    void* grad_state;        // (n, D) of float or complex64
    int64_t n_sequences, seq_len, d_model, dtype, constant;
    int64_t a_batch_stride, a_time_stride, b_batch_stride, b_time_stride, grad_batch_stride, grad_time_stride;
};

constexpr int64_t STEPS = 4;  // that are walked at once
constexpr int64_t LEAST_CHANNELS = 64;

// Channels begin <= c < begin + channels of a sequence.
struct Block {
    int64_t sequence, begin, channels;
};

// Calls f(block) for blocks that are as wide as keeps every thread busy.
template <typename F>
void for_channels(int64_t n_sequences, int64_t d_model, int64_t threads, const F& f) {
    if (!n_sequences) return;
    const int64_t wanted = threads > 1 ? 2 * threads : 1, across = (wanted + n_sequences - 1) / n_sequences;
    const int64_t width = std::clamp((d_model + across - 1) / across, LEAST_CHANNELS, MOST_CHANNELS) / W * W;
    const int64_t n_blocks = (d_model + width - 1) / width;
    for_blocks(n_sequences * n_blocks, threads, [&](int64_t i) {
        const int64_t begin = i % n_blocks * width;
        f(Block{i / n_blocks, begin, std::min(width, d_model - begin)});
    });
}

// A number for each channel of a block.
template <typename T>
struct Lanes {
    Vector<T> x[MOST_CHANNELS / W];

    // Reads a block's part of rows (n, D); zeros where they are null.
    void read(const void* rows, int64_t d_model, const Block& block) {
        const auto* row = ZEROS<Wide<T>>;
        if (rows) row = static_cast<const Wide<T>*>(rows) + block.sequence * d_model + block.begin;
        for_lanes(block.channels, [&](int64_t c, auto n) { x[c / W] = load(row + c, n); });
    }
    void write(void* rows, int64_t d_model, const Block& block) const {
        auto* row = static_cast<Wide<T>*>(rows) + block.sequence * d_model + block.begin;
        for_lanes(block.channels, [&](int64_t c, auto n) { store(row + c, x[c / W], n); });
    }
};

// What both directions read.
template <typename A, typename T>
struct Inputs {
    Sequences sequences;
    Rows<const A> a;
    Rows<const T> b;

    template <typename Arguments>
    explicit Inputs(const Arguments& arguments)
        : sequences{arguments.bounds, arguments.n_sequences, arguments.seq_len},
          a{static_cast<const A*>(arguments.a), arguments.a_batch_stride, arguments.a_time_stride},
          b{static_cast<const T*>(arguments.b), arguments.b_batch_stride, arguments.b_time_stride} {}

    int64_t start(const Block& block) const { return sequences.start(block.sequence); }
    template <typename E>
    const E* at(const Rows<const E>& rows, const Block& block, int64_t t) const {
        return rows.at(sequences, block.sequence, t) + block.begin;
    }
};

template <typename A, typename T>
void forward(const Forward& arguments, int64_t threads) {
    const Inputs<A, T> inputs(arguments);
    const int64_t d_model = arguments.d_model;
    for_channels(arguments.n_sequences, d_model, threads, [&](const Block& block) {
        const int64_t size = inputs.sequences.size(block.sequence);
        const int64_t a_stride = inputs.a.time_stride, b_stride = inputs.b.time_stride;
        Lanes<T> lanes;
        lanes.read(arguments.state, d_model, block);
        Vector<T>* state = lanes.x;
        T* out = static_cast<T*>(arguments.h) + inputs.start(block) * d_model + block.begin;
        for (int64_t t = 0; t < size; t += STEPS, out += STEPS * d_model) {
            const A* a = inputs.at(inputs.a, block, t);
            const T* b = inputs.at(inputs.b, block, t);
            const int64_t steps = std::min(STEPS, size - t);
            for_lanes(block.channels, [=](int64_t c, auto n) {
                Vector<T> h = state[c / W];
                for (int64_t s = 0; s < steps; s++) {
                    __builtin_prefetch(out + (s + STEPS) * d_model + c, 1);
                    h = multiply_add(load(a + s * a_stride + c, n), h, load(b + s * b_stride + c, n));
                    store(out + s * d_model + c, h, n);
                }
                state[c / W] = h;
            });
        }
        lanes.write(arguments.final_state, d_model, block);
    });
}

// The gradient of one block. With g_t that of h_t, through which all later ones come,
// g_t = dh_t + conj(a_{t+1}) g_{t+1} is the gradient of b_t, and conj(h_{t-1}) g_t that of a_t. A state is
// kept every few steps on the way forward; those between are made again on the way back.
template <typename A, typename T, bool CONSTANT>
class Gradient {
   public:
    Gradient(const Backward& arguments, const Inputs<A, T>& inputs, const Block& block)
        : arguments_(arguments),
          inputs_(inputs),
          block_(block),
          size_(inputs.sequences.size(block.sequence)),
          n_lanes_((block.channels + W - 1) / W),
          n_kept_((size_ + STEPS - 1) / STEPS),
          memory_(n_kept_ * n_lanes_ * int64_t(sizeof(Vector<T>) / sizeof(float))) {}

    // With a constant factor, `sums` (n, D) gets the gradient of a that the sequence gives.
    void run(void* sums) {
        Lanes<T> lanes, sum{};
        lanes.read(arguments_.state, arguments_.d_model, block_);
        for (int64_t k = 0; k < n_kept_; k++) keep(k, lanes.x);
        lanes.read(arguments_.grad_final, arguments_.d_model, block_);
        for (int64_t k = n_kept_ - 1; k >= 0; k--) back(k, lanes.x, sum.x);
        lanes.write(arguments_.grad_state, arguments_.d_model, block_);
        if (CONSTANT) sum.write(sums, arguments_.d_model, block_);
    }

   private:
    Vector<T>* kept(int64_t k) { return reinterpret_cast<Vector<T>*>(memory_.get()) + k * n_lanes_; }
    const T* grad_h(int64_t t) const {
        const auto* data = static_cast<const T*>(arguments_.grad_h);
        const Rows<const T> rows{data, arguments_.grad_batch_stride, arguments_.grad_time_stride};
        return data ? inputs_.at(rows, block_, t) : ZEROS<T>;
    }
    int64_t out(int64_t t) const { return (inputs_.start(block_) + t) * arguments_.d_model + block_.begin; }

    // Keeps the state before step k STEPS, and moves it on to the next that is kept.
    void keep(int64_t k, Vector<T>* state) {
        const A* a = inputs_.at(inputs_.a, block_, k * STEPS);
        const T* b = inputs_.at(inputs_.b, block_, k * STEPS);
        const int64_t a_stride = inputs_.a.time_stride, b_stride = inputs_.b.time_stride;
        const int64_t steps = k + 1 < n_kept_ ? STEPS : 0;
        Vector<T>* to = kept(k);
        for_lanes(block_.channels, [=](int64_t c, auto n) {
            Vector<T> h = to[c / W] = state[c / W];
            for (int64_t s = 0; s < steps; s++)
                h = multiply_add(load(a + s * a_stride + c, n), h, load(b + s * b_stride + c, n));
            state[c / W] = h;
        });
    }

    // Goes back from the end of those steps to their beginning; `grad` is that of the state there.
    void back(int64_t k, Vector<T>* grad, Vector<T>* sum) {
        const int64_t t = k * STEPS, steps = std::min(STEPS, size_ - t), stride = arguments_.d_model;
        const int64_t a_stride = inputs_.a.time_stride, b_stride = inputs_.b.time_stride;
        const int64_t grad_stride = arguments_.grad_time_stride;
        const A* a = inputs_.at(inputs_.a, block_, t);
        const T *b = inputs_.at(inputs_.b, block_, t), *given = grad_h(t);
        A* grad_a = CONSTANT ? nullptr : static_cast<A*>(arguments_.grad_a) + out(t);
        T* grad_b = static_cast<T*>(arguments_.grad_b) + out(t);
        const Vector<T>* from = kept(k);
        for_lanes(block_.channels, [=](int64_t c, auto n) {
            Vector<T> h[STEPS], few{}, g = grad[c / W];
            h[0] = from[c / W];
            for (int64_t s = 0; s + 1 < steps; s++)
                h[s + 1] = multiply_add(load(a + s * a_stride + c, n), h[s], load(b + s * b_stride + c, n));
            for (int64_t s = steps - 1; s >= 0; s--) {
                __builtin_prefetch(grad_b + (s - STEPS) * stride + c, 1);
                if (!CONSTANT) __builtin_prefetch(grad_a + (s - STEPS) * stride + c, 1);
                g = g + load(given + s * grad_stride + c, n);
                store(grad_b + s * stride + c, g, n);
                if (CONSTANT)
                    few = multiply_add(conjugate(h[s]), g, few);
                else
                    store(grad_a + s * stride + c, multiply(conjugate(h[s]), g), n);
                g = multiply(conjugate(load(a + s * a_stride + c, n)), g);
            }
            grad[c / W] = g;
            if (CONSTANT) sum[c / W] = sum[c / W] + few;
        });
    }

    const Backward& arguments_;
    const Inputs<A, T>& inputs_;
    const Block& block_;
    int64_t size_, n_lanes_, n_kept_;
    Scratch memory_;
};

template <typename A, typename T, bool CONSTANT>
void backward(const Backward& arguments, int64_t threads) {
    const Inputs<A, T> inputs(arguments);
    const int64_t n_rows = CONSTANT ? arguments.n_sequences : 0, d_model = arguments.d_model;
    Scratch sums(n_rows * d_model * int64_t(sizeof(Wide<T>) / sizeof(float)));
    for_channels(arguments.n_sequences, d_model, threads, [&](const Block& block) {
        Gradient<A, T, CONSTANT>(arguments, inputs, block).run(sums.get());
    });
    if (!CONSTANT) return;
    const auto* rows = reinterpret_cast<const Wide<T>*>(sums.get());
    for_lanes(d_model, [&](int64_t c, auto n) {
        Vector<T> total{};
        for (int64_t i = 0; i < n_rows; i++) total = total + load(rows + i * d_model + c, n);
        store(static_cast<Wide<T>*>(arguments.grad_a) + c, total, n);
    });
}

// Calls run(element) with an element of the tensors' dtype.
template <typename F>
void for_dtype(int64_t dtype, const F& run) {
    switch (dtype) {
        case 2: return run(complex64());
        case 1: return run(bf16());
        default: return run(float());
    }
}

void run_forward(const Forward& a, int64_t threads) {
    for_dtype(a.dtype, [&](auto x) {
        using T = decltype(x);
        a.constant ? forward<Wide<T>, T>(a, threads) : forward<T, T>(a, threads);
    });
}

void run_backward(const Backward& a, int64_t threads) {
    for_dtype(a.dtype, [&](auto x) {
        using T = decltype(x);
        a.constant ? backward<Wide<T>, T, true>(a, threads) : backward<T, T, false>(a, threads);
    });
}

}  // namespace
}  // namespace helix

HELIX_KERNEL(diagonal_scan, helix::Forward, helix::run_forward)
HELIX_KERNEL(diagonal_scan_backward, helix::Backward, helix::run_backward)
