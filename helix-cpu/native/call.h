// How Python calls a kernel: one block of arguments, each 8 bytes wide, and the number of threads.

#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

namespace helix {

enum Status : int { DONE = 0, WRONG_ARGUMENTS = 1, OUT_OF_MEMORY = 2 };

// Memory for n floats that lasts as long as the object, on a boundary of 64 bytes; throws std::bad_alloc.
class Scratch {
   public:
    explicit Scratch(int64_t n) : data_(static_cast<float*>(::operator new[](n * sizeof(float), ALIGNMENT))) {}
    ~Scratch() { ::operator delete[](data_, ALIGNMENT); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* get() { return data_; }

   private:
    static constexpr std::align_val_t ALIGNMENT{64};
    float* data_;
};

template <typename Arguments>
int call(void (*run)(const Arguments&, int64_t), const void* packed, int64_t size, int64_t threads) {
    static_assert(sizeof(Arguments) % 8 == 0, "every argument is 8 bytes wide");
    if (size != sizeof(Arguments)) return WRONG_ARGUMENTS;
    Arguments arguments;
    std::memcpy(&arguments, packed, sizeof arguments);
    try {
        run(arguments, threads);
    } catch (const std::bad_alloc&) {
        return OUT_OF_MEMORY;
    }
    return DONE;
}

}  // namespace helix

#define HELIX_EXPORT extern "C" __attribute__((visibility("default")))

// Exports `helix_<name>(packed, size, threads)`, which unpacks `Arguments` and calls `run`.
#define HELIX_KERNEL(name, Arguments, run)                                                 \
    HELIX_EXPORT int helix_##name(const void* packed, int64_t size, int64_t threads) {    \
        return helix::call<Arguments>(run, packed, size, threads);                         \
    }
