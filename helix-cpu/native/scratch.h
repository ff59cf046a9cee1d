// Memory for what a kernel keeps while it runs. Large blocks are kept for the next call: the C library gives
// them back to the system, and fresh pages, each cleared at its first touch, cost as much as a kernel's work.

#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

namespace helix {

struct Memory {
    void* data;
    size_t size;
};

inline Memory allocate(size_t size) { return {::operator new[](size, std::align_val_t{64}), size}; }
inline void release(Memory block) { ::operator delete[](block.data, std::align_val_t{64}); }

// Blocks that no kernel uses just now, the one given back last at the end. A thread that finds another one at
// it, or a lock left behind by a fork, goes on without.
class Kept {
   public:
    // The smallest block of at least that size, or none.
    Memory take(size_t size) {
        Memory found{nullptr, 0};
        if (busy_.test_and_set(std::memory_order_acquire)) return found;
        int best = n_;
        for (int i = 0; i < n_; i++)
            if (blocks_[i].size >= size && (best == n_ || blocks_[i].size < blocks_[best].size)) best = i;
        if (best < n_) found = remove(best);
        busy_.clear(std::memory_order_release);
        return found;
    }

    // Keeps the block, and frees older ones that there is no place for.
    void give(Memory block) {
        if (block.size > MOST || busy_.test_and_set(std::memory_order_acquire)) return release(block);
        while (n_ == MOST_BLOCKS || total_ + block.size > MOST) release(remove(0));
        blocks_[n_++] = block;
        total_ += block.size;
        busy_.clear(std::memory_order_release);
    }

   private:
    static constexpr size_t MOST = size_t(64) << 20;
    static constexpr int MOST_BLOCKS = 64;

    Memory remove(int i) {
        const Memory block = blocks_[i];
        std::copy(blocks_ + i + 1, blocks_ + n_, blocks_ + i);
        n_--;
        total_ -= block.size;
        return block;
    }

    std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
    int n_ = 0;
    size_t total_ = 0;
    Memory blocks_[MOST_BLOCKS];
};

inline Kept kept;

// n floats on a boundary of 64 bytes, of any value, for as long as the object lasts; throws std::bad_alloc.
class Scratch {
   public:
    explicit Scratch(int64_t n) : block_(obtain(size_t(n) * sizeof(float))) {}
    ~Scratch() { block_.size < LARGE ? release(block_) : kept.give(block_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* get() { return static_cast<float*>(block_.data); }

   private:
#if defined(__SANITIZE_ADDRESS__)
    static constexpr size_t LARGE = SIZE_MAX;  // each block has its own bounds, which the sanitizer watches
#else
    static constexpr size_t LARGE = size_t(128) << 10;  // what the C library takes from the system by itself
#endif

    static Memory obtain(size_t size) {
        const Memory found = size < LARGE ? Memory{nullptr, 0} : kept.take(size);
        return found.data ? found : allocate(size);
    }

    Memory block_;
};

}  // namespace helix
