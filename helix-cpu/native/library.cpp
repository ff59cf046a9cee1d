// What the library itself tells and is told: the instruction sets of this processor, and PyTorch's threads.

#include "call.h"
#include "parallel.h"

namespace helix {

Fork fork_threads = nullptr;

}  // namespace helix

HELIX_EXPORT void helix_set_fork(helix::Fork fork) { helix::fork_threads = fork; }

// Whether the processor and the system can run the library of that name. Built into the baseline, which
// runs anywhere, so that asking is safe.
HELIX_EXPORT int helix_supports(const char* isa) {
    const auto is = [isa](const char* name) { return std::strcmp(isa, name) == 0; };
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    if (is("avx512")) return avx512;
    if (is("avx2")) return avx2;
#elif defined(__aarch64__)
    if (is("neon")) return 1;
#endif
    return is("baseline");
}
