// How Python calls a kernel: one block of arguments, each 8 bytes wide, and the number of threads.

#pragma once

#include <cstdint>
#include <cstring>
#include <new>

#include "scratch.h"

namespace helix {

enum Status : int { DONE = 0, WRONG_ARGUMENTS = 1, OUT_OF_MEMORY = 2 };

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
