// The gated delta rule: one decay for all of the memory, and a write removes what its key held before.

#include "linear_attention_backward.h"
#include "linear_attention_forward.h"

namespace helix::linear_attention {
namespace {

void gated_delta_rule(const Forward& a, int64_t threads) { run_forward<GatedDelta>(a, threads); }

void gated_delta_rule_backward(const Backward& a, int64_t threads) { run_backward<GatedDelta>(a, threads); }

}  // namespace
}  // namespace helix::linear_attention

HELIX_KERNEL(gated_delta_rule, helix::linear_attention::Forward, helix::linear_attention::gated_delta_rule)
HELIX_KERNEL(gated_delta_rule_backward, helix::linear_attention::Backward, helix::linear_attention::gated_delta_rule_backward)
