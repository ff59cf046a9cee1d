"""Backends that serve one op of helix-ssm, causal_conv1d, each wrong in one way."""

from __future__ import annotations

import torch

from helix_kernel.backends import Memory, Probe
from helix_kernel.ops import reference
from planted.faults import Fault


class Sound:
    """Serves the op and its gradient by the contract's own formula."""

    device_type = "cpu"
    priority = 5

    @property
    def ops(self):
        return {
            "causal_conv1d": self.forward,
            "causal_conv1d_backward": self.backward,
        }

    def probe(self):
        return Probe(available=True, reason="found: nothing is needed", devices=("cpu",))

    def memory(self, index=0):
        return Memory(total=2, available=1)

    def forward(self, x, weight, bias, silu, initial_state, cu_seqlens):
        return reference("causal_conv1d")(x, weight, bias, silu, initial_state, cu_seqlens)

    def backward(self, *args):
        return reference("causal_conv1d_backward")(*args)


class LeavesAnElementUnwritten(Sound):
    def forward(self, x, *rest):
        y, state = super().forward(x, *rest)
        out = torch.empty_like(y)
        out.flatten()[1:] = y.flatten()[1:]
        return out, state


class ReadsUnwrittenMemory(Sound):
    def forward(self, x, *rest):
        y, state = super().forward(x, *rest)
        return y + 0 * torch.empty_like(y), state


class WrongAtOddLengths(Sound):
    def forward(self, x, *rest):
        y, state = super().forward(x, *rest)
        return (y * 1.01 if x.shape[1] % 2 else y), state


class IgnoresTheInitialState(Sound):
    def forward(self, x, weight, bias, silu, initial_state, cu_seqlens):
        return super().forward(x, weight, bias, silu, None, cu_seqlens)


class IgnoresStrides(Sound):
    def forward(self, x, *rest):
        dense = torch.as_strided(x, x.shape, (x.shape[1] * x.shape[2], x.shape[2], 1), x.storage_offset())
        return super().forward(dense, *rest)


class WrongGradientOfTheWeight(Sound):
    def backward(self, *args):
        first, weight, *rest = super().backward(*args)
        return first, 1.01 * weight, *rest


class DeclinesEverything(Sound):
    def forward(self, *args):
        return NotImplemented


class DeclinesTheGradient(Sound):
    def backward(self, *args):
        return NotImplemented


class GivesAnotherShape(Sound):
    def forward(self, x, *rest):
        y, state = super().forward(x, *rest)
        return y.unsqueeze(0).expand(2, *y.shape).contiguous(), state


class DependsOnThreads(Sound):
    def forward(self, x, *rest):
        y, state = super().forward(x, *rest)
        return y * (1 + 1e-3 * (torch.get_num_threads() > 1)), state


class ChangesItsInput(Sound):
    def forward(self, x, *rest):
        results = super().forward(x, *rest)
        x.mul_(2)
        return results


class ProbeRaises(Sound):
    def probe(self):
        raise ImportError("no module named my_kernels")


class ProbeGivesNoReason(Sound):
    def probe(self):
        return Probe(available=False, reason="")


class ServesAnUnknownOp(Sound):
    @property
    def ops(self):
        return {"causal_conv2d": print}


class MoreMemoryThanThereIs(Sound):
    def memory(self, index=0):
        return Memory(total=1, available=2)


FAULTS = (
    Fault(LeavesAnElementUnwritten, "test_memory_that_nobody_wrote_is_not_read", "hold memory never written"),
    Fault(ReadsUnwrittenMemory, "test_memory_that_nobody_wrote_is_not_read", "'plain': .* never written"),
    Fault(WrongAtOddLengths, "test_results_agree_with_the_reference", r"sample '.*': tensor 0 differs by"),
    Fault(IgnoresTheInitialState, "test_results_agree_with_the_reference", "'everything': tensor 0 differs"),
    Fault(IgnoresStrides, "test_arguments_need_not_be_contiguous", "'plain': tensor 0 differs"),
    Fault(WrongGradientOfTheWeight, "test_gradients_agree_with_the_reference", "'plain': tensor 1 differs"),
    Fault(
        DeclinesEverything,
        "test_samples_reach_what_it_implements",
        r"causal_conv1d returned NotImplemented for each of \d+ samples, in float32 and float64",
    ),
    Fault(
        DeclinesTheGradient,
        "test_samples_reach_what_it_implements",
        "causal_conv1d_backward returned NotImplemented for each",
    ),
    Fault(GivesAnotherShape, "test_results_agree_with_the_reference", "'plain': tensor 0 has shape"),
    Fault(DependsOnThreads, "test_the_number_of_threads_does_not_matter", "'plain': tensor 0 differs"),
    Fault(ChangesItsInput, "test_arguments_are_left_as_they_were", r"arguments \[0\] were changed"),
    Fault(ProbeRaises, "test_probe_answers_and_gives_a_reason", r"must return Probe\(False, reason\)"),
    Fault(ProbeGivesNoReason, "test_probe_answers_and_gives_a_reason", "gives no reason"),
    Fault(ServesAnUnknownOp, "test_its_ops_have_contracts", "causal_conv2d, which no installed"),
    Fault(MoreMemoryThanThereIs, "test_it_tells_memory_or_that_it_cannot", "2 of 1 bytes"),
)
