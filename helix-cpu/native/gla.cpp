// Gated linear attention: every row of the memory decays at a rate of its own.

#include "linear_attention_backward.h"
#include "linear_attention_forward.h"

namespace helix::linear_attention {
namespace {

void gla(const Forward& a, int64_t threads) { run_forward<GatedLinear>(a, threads); }

void gla_backward(const Backward& a, int64_t threads) { run_backward<GatedLinear>(a, threads); }

}  // namespace
}  // namespace helix::linear_attention

HELIX_KERNEL(gla, helix::linear_attention::Forward, helix::linear_attention::gla)
HELIX_KERNEL(gla_backward, helix::linear_attention::Backward, helix::linear_attention::gla_backward)
