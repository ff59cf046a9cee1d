// Blocks of work on the threads of PyTorch's own OpenMP runtime.

#pragma once

#include <atomic>
#include <cstdint>
#include <new>

namespace helix {

// GOMP_parallel(function, data, threads, flags) of the runtime that PyTorch has loaded; null: run serially.
// The library links no OpenMP itself: a second runtime in the process would be a second pool of threads.
using Fork = void (*)(void (*)(void*), void*, unsigned, unsigned);
extern Fork fork_threads;

template <typename F>
struct Blocks {
    std::atomic<int64_t> next{0};
    std::atomic<bool> out_of_memory{false};
    int64_t count;
    const F& run;

    Blocks(int64_t n, const F& f) : count(n), run(f) {}

    // An exception must not leave the function that a thread runs.
    static void work(void* self) {
        auto* blocks = static_cast<Blocks*>(self);
        try {
            for (int64_t i; (i = blocks->next.fetch_add(1, std::memory_order_relaxed)) < blocks->count;)
                blocks->run(i);
        } catch (const std::bad_alloc&) {
            blocks->out_of_memory = true;
        }
    }
};

// Calls run(i) for each i < count, on up to `threads` threads, in no order: a block writes only what is its own.
template <typename F>
void for_blocks(int64_t count, int64_t threads, const F& run) {
    if (threads > count) threads = count;
    if (threads <= 1 || fork_threads == nullptr) {
        for (int64_t i = 0; i < count; i++) run(i);
        return;
    }
    Blocks<F> blocks(count, run);
    fork_threads(&Blocks<F>::work, &blocks, unsigned(threads), 0);
    if (blocks.out_of_memory) throw std::bad_alloc();
}

}  // namespace helix
