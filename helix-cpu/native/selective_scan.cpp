// The selective scan, forward.

#include "call.h"
#include "parallel.h"
#include "selective_scan.h"
#include "selective_scan_step.h"

namespace helix::selective_scan {
namespace {

// One sequence of one slab, and the memory that its chunks share.
template <typename T>
class Item {
   public:
    Item(const Forward& a, int64_t sequence, const Slab& slab)
        : a_(a), in_(a.in), at_{a.in, slab, sequence}, n_blocks_(slab.n_blocks()), memory_(size()) {
        A_ = memory_.get();
        h_ = A_ + n_blocks_ * in_.d_state * W;
        largest_A_ = h_ + n_blocks_ * in_.d_state * W;
        dt_ = largest_A_ + n_blocks_ * W;
        x_ = dt_ + STEPS * W;
        y_ = x_ + STEPS * W;
        B_ = y_ + STEPS * W;
        C_ = B_ + STEPS * in_.d_state;
    }

    void run() {
        for (int64_t k = 0; k < n_blocks_; k++) {
            const float* state = in_.initial_state ? in_.initial_state + at_.state_row(k) : nullptr;
            store(largest_A_ + k * W, load_decay_rates(in_, at_.channel(k), at_.slab.lanes(k), A(k)));
            load_states(state, in_.d_state, at_.slab.lanes(k), 1.0f, h(k));
        }
        const int64_t seq_len = at_.seq_len();
        for (int64_t t = 0; t < seq_len; t += STEPS) run_chunk(t, int(std::min<int64_t>(STEPS, seq_len - t)));
        for (int64_t k = 0; k < n_blocks_; k++)
            store_states(h(k), in_.d_state, at_.slab.lanes(k), a_.final_state + at_.state_row(k));
    }

   private:
    int64_t size() const {
        return n_blocks_ * (2 * in_.d_state + 1) * W + 3 * STEPS * W + 2 * STEPS * in_.d_state;
    }
    float* A(int64_t k) { return A_ + k * in_.d_state * W; }
    float* h(int64_t k) { return h_ + k * in_.d_state * W; }

    void run_chunk(int64_t t, int n) {
        Chunk chunk = at_.chunk(t, n, B_, C_);
        chunk.dt = dt_, chunk.x = x_, chunk.y = y_;
        for (int64_t k = 0; k < n_blocks_; k++) {
            if (t > 0 && a_.states) chunk.saved = saved(t / STEPS - 1, k);
            fetch_next(t, k, chunk.fetches);
            with_lanes(at_.slab.lanes(k), [&](auto lanes) {
                chunk.wide = begin(t, k, n, lanes);
                advance<true>(chunk, A(k), in_.d_state, h(k));
                finish(t, k, n, lanes);
            });
        }
    }

    Saved saved(int64_t i, int64_t k) const {
        return Saved{a_.states + at_.saved_state(i, k), in_.channels_per_group(), at_.slab.lanes(k)};
    }

    // The rows of the next vector of channels, here or in the next chunk.
    void fetch_next(int64_t t, int64_t k, Fetch (&fetches)[FETCHES]) const {
        const auto next = [&](const T* row, int64_t time_stride) {
            row += k + 1 < n_blocks_ ? W : STEPS * time_stride - k * W;
            return Fetch{row, time_stride * int64_t(sizeof(T))};
        };
        fetches[0] = next(at_.u(t, k), in_.u_time);
        fetches[1] = next(at_.delta(t, k), in_.delta_time);
        fetches[2] = next(static_cast<const T*>(a_.y) + at_.output(t, k), in_.d_model);
        fetches[3] = in_.z ? next(at_.z(t, k), in_.z_time) : Fetch{dt_, 0};
    }

    // Makes dt, dt u and D u.
    template <typename Lanes>
    bool begin(int64_t t, int64_t k, int n, Lanes lanes) {
        const T *u = at_.u(t, k), *delta = at_.delta(t, k);
        const vf bias = load_channels(in_.delta_bias, at_.channel(k), lanes);
        const vf skip = load_channels(in_.D, at_.channel(k), lanes);
        const vf largest = step_sizes(delta, in_.delta_time, bias, in_.softplus, n, lanes, dt_, x_);
        for (int64_t i = 0, stride = in_.u_time; i < n; i++) {
            const vf x = load(u + i * stride, lanes);
            store(x_ + i * W, load(dt_ + i * W) * x);
            store(y_ + i * W, skip * x);
        }
        return is_wide(largest, load(largest_A_ + k * W));
    }

    template <typename Lanes>
    void finish(int64_t t, int64_t k, int n, Lanes lanes) {
        T* y = static_cast<T*>(a_.y) + at_.output(t, k);
        const int64_t y_time = in_.d_model, z_time = in_.z_time;
        if (in_.z) {
            const T* z = at_.z(t, k);
            for (int i = 0; i < n; i++)
                store(y_ + i * W, load(y_ + i * W) * silu(load(z + i * z_time, lanes)));
        }
        for (int i = 0; i < n; i++) store(y + i * y_time, load(y_ + i * W), lanes);
    }

    const Forward& a_;
    const Inputs& in_;
    const View<T> at_;
    const int64_t n_blocks_;
    Scratch memory_;
    float *A_, *h_, *largest_A_, *dt_, *x_, *y_, *B_, *C_;
};

// As many vectors of channels as leave each thread a few slabs, and A and h in the second cache. Results are
// the same for any number, for channels do not meet.
int64_t blocks_per_slab(const Inputs& in, int64_t threads) {
    const int64_t blocks = (in.channels_per_group() + W - 1) / W;
    const int64_t items = std::max<int64_t>(in.n_sequences * in.n_groups, 1);
    const int64_t wanted = threads > 1 ? (4 * threads + items - 1) / items : 1;
    const int64_t fitting = std::max<int64_t>(32768 / (W * std::max<int64_t>(in.d_state, 1)), 1);
    return std::max<int64_t>(std::min((blocks + wanted - 1) / wanted, fitting), 1);
}

template <typename T>
void run_as(const Forward& a, int64_t threads) {
    constexpr int64_t WORTH_A_FORK = 1 << 16;
    if (a.in.n_elements() < WORTH_A_FORK) threads = 1;
    const Slabs slabs{a.in.n_groups, a.in.channels_per_group(), blocks_per_slab(a.in, threads)};
    const bool step = a.in.bounds == nullptr && a.in.seq_len == 1;
    for_blocks(a.in.n_sequences * slabs.count(), threads, [&](int64_t i) {
        const int64_t sequence = i / slabs.count();
        const Slab slab = slabs[i % slabs.count()];
        if (step)
            step_slab<T>(a, sequence, slab);
        else
            Item<T>(a, sequence, slab).run();
    });
}

void run(const Forward& a, int64_t threads) {
    if (a.in.dtype == 0)
        run_as<float>(a, threads);
    else
        run_as<bf16>(a, threads);
}

}  // namespace
}  // namespace helix::selective_scan

HELIX_KERNEL(selective_scan, helix::selective_scan::Forward, helix::selective_scan::run)
