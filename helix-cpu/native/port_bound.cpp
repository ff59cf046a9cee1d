// Fused multiply-adds and nothing else: how long a number of vector instructions takes at the least, which is
// what `helix bench ops` holds a kernel against. No op calls it.

#include "call.h"
#include "vector.h"

namespace helix {
namespace {

struct Arguments {
    int64_t sink;  // float[W], so that the sums are needed
    int64_t instructions;
};

#if defined(__FMA__) || defined(__aarch64__)
constexpr int PER_STEP = 1;
#else
constexpr int PER_STEP = 2;  // a multiplication and an addition
#endif

void issue(const Arguments& a, int64_t) {
    constexpr int CHAINS = 12;  // enough that no port waits for a result, few enough for 16 registers
    const vf factor = splat(0.5f), term = splat(1.0f);
    vf sums[CHAINS];
    for (int chain = 0; chain < CHAINS; chain++) sums[chain] = splat(float(chain));  // no two alike
    for (int64_t i = 0; i < a.instructions; i += CHAINS * PER_STEP) {
#pragma GCC unroll 12
        for (int chain = 0; chain < CHAINS; chain++) sums[chain] = sums[chain] * factor + term;
    }
    vf total{};
    for (int chain = 0; chain < CHAINS; chain++) total += sums[chain];
    store(reinterpret_cast<float*>(a.sink), total);
}

}  // namespace
}  // namespace helix

HELIX_KERNEL(port_bound, helix::Arguments, helix::issue)
