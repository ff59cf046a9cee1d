// RWKV-7: every row decays at a rate of its own, and one direction is read and written along another.

#include "linear_attention_backward.h"
#include "linear_attention_forward.h"

namespace helix::linear_attention {
namespace {

void rwkv7(const Forward& a, int64_t threads) { run_forward<Rwkv7>(a, threads); }

void rwkv7_backward(const Backward& a, int64_t threads) { run_backward<Rwkv7>(a, threads); }

}  // namespace
}  // namespace helix::linear_attention

HELIX_KERNEL(rwkv7, helix::linear_attention::Forward, helix::linear_attention::rwkv7)
HELIX_KERNEL(rwkv7_backward, helix::linear_attention::Backward, helix::linear_attention::rwkv7_backward)
