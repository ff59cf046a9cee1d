"""Layers with one fault each."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from planted.faults import Fault


class LeakySum(nn.Module):
    """h_t = decay h_{t-1} + x_t, y_t = W h_t: the smallest sound layer with a state, packed sequences too."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.decay = nn.Parameter(torch.rand(d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x, *, cu_seqlens=None):
        rows = 1 if cu_seqlens is None else len(cu_seqlens) - 1
        state = self.init_state(max(len(x), rows), device=x.device, dtype=x.dtype)
        return LeakySum.extend(self, x, state, cu_seqlens=cu_seqlens)[0]

    def init_state(self, batch_size, *, device=None, dtype=None):
        return {"h": self.decay.new_zeros(batch_size, self.decay.numel(), device=device, dtype=dtype)}

    def extend(self, x, state, *, cu_seqlens=None):
        if cu_seqlens is not None:
            return self.extend_packed(x, state, cu_seqlens.tolist())
        outputs = [torch.empty_like(x[:, :0])]
        for x_t in x.unbind(1):
            y_t, state = LeakySum.step(self, x_t, state)
            outputs.append(y_t.unsqueeze(1))
        return torch.cat(outputs, dim=1), state

    def extend_packed(self, x, state, bounds):
        chunks = [x[:, start:end] for start, end in itertools.pairwise(bounds)]
        rows = [LeakySum.extend(self, c, {"h": h}) for c, h in zip(chunks, state["h"][:, None], strict=True)]
        return torch.cat([y for y, _ in rows], dim=1), {"h": torch.cat([s["h"] for _, s in rows])}

    def step(self, x_t, state):
        h = self.decay * state["h"] + x_t
        return self.out_proj(h), {"h": h}


class PeeksAtTheFuture(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x + 1e-6 * x.roll(-1, dims=1), **packing)


class StepDrifts(LeakySum):
    def step(self, x_t, state):
        y_t, state = super().step(x_t, state)
        return y_t, {"h": state["h"] * (1 + 1e-6)}


class ExtendForgetsTheState(LeakySum):
    def extend(self, x, state, **packing):
        return super().extend(x, self.init_state(len(x), dtype=x.dtype), **packing)


class StateRowsMix(LeakySum):
    def extend(self, x, state, **packing):
        y, state = super().extend(x, state, **packing)
        return y, {"h": state["h"].flip(0)}


class StepChangesItsState(LeakySum):
    def step(self, x_t, state):
        state["h"].mul_(self.decay.detach()).add_(x_t)
        return self.out_proj(state["h"]), {"h": state["h"]}


class DependsOnTheBatch(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x - 1e-6 * x.mean(0), **packing)


class StateIsNotBatchFirst(LeakySum):
    def init_state(self, batch_size, **where):
        return {**super().init_state(batch_size, **where), "position": torch.zeros(1)}

    def extend(self, x, state, **packing):
        return super().extend(x, state, **packing)[0], {**state, "position": state["position"] + x.shape[1]}


class StateIsDetached(LeakySum):
    def extend(self, x, state, **packing):
        y, state = super().extend(x, state, **packing)
        return y, {"h": state["h"].detach()}


class InitialStateIgnoresDtype(LeakySum):
    def init_state(self, batch_size, *, device=None, dtype=None):
        return super().init_state(batch_size, device=device)


class ParameterIsUnused(LeakySum):
    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.gain = nn.Parameter(torch.ones(d_model))


class Square(torch.autograd.Function):
    """x², with the gradient x instead of 2x."""

    @staticmethod
    def forward(context, x):
        context.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(context, gradient):
        (x,) = context.saved_tensors
        return gradient * x


class GradientIsWrong(LeakySum):
    def forward(self, x, **packing):
        return Square.apply(super().forward(x, **packing))


class WeightsAreHidden(LeakySum):
    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.hidden = torch.randn(d_model)

    def forward(self, x, **packing):
        return super().forward(x + self.hidden.to(x.dtype), **packing)


class EvaluationIsRandom(LeakySum):
    def forward(self, x, **packing):
        return nn.functional.dropout(super().forward(x, **packing), p=0.5)


class InputsAreChanged(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x.mul_(2), **packing)


class StridesAreIgnored(LeakySum):
    def forward(self, x, **packing):
        dense = x.as_strided(x.shape, (x.shape[1] * x.shape[2], x.shape[2], 1))
        return super().forward(dense, **packing)


class ViewNeedsContiguousInputs(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x.view(-1).view(x.shape), **packing)


class BreaksAtOneToken(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x, **packing) / (0 if x.shape[1] == 1 else 1)


class RefusesOneToken(LeakySum):
    def forward(self, x, **packing):
        first, _second = x[:, :2].unbind(1)
        return super().forward(x, **packing) + 0 * first.unsqueeze(1)


class WrongAtEvenLengths(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x, **packing) * (1.001 if x.shape[1] % 2 == 0 else 1.0)


class WrongAtOddLengths(nn.Module):
    """Treats each position by itself, and pairs of positions at once; the last of an odd number is lost."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(d_model))

    def forward(self, x):
        paired = (self.scale * x)[:, : x.shape[1] // 2 * 2]
        return torch.cat([paired, x[:, paired.shape[1] :]], dim=1)


class ComputesInFloat32(LeakySum):
    def forward(self, x, **packing):
        y = super().forward(x, **packing)
        return y.float().to(x.dtype)


class PackingIsIgnored(LeakySum):
    def forward(self, x, *, cu_seqlens=None):
        return super().forward(x)


class PackedStatesAreSwapped(LeakySum):
    def extend_packed(self, x, state, bounds):
        y, state = super().extend_packed(x, state, bounds)
        return y, {"h": state["h"].flip(0)}


class LastTokenOnly(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x, **packing)[:, -1]


class MixesWithoutState(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(d_model))

    def forward(self, x):
        return self.scale * x.cumsum(1)


class BreaksTheGraph(LeakySum):
    def forward(self, x, **packing):
        return super().forward(x, **packing) * (2.0 if x.sum().item() > 0 else 1.0)


class NeedsMore(LeakySum):
    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__(d_model * n_heads)


FAULTS = (
    Fault(PeeksAtTheFuture, "test_the_future_does_not_change_the_past", "outputs before 1 change with"),
    Fault(StepDrifts, "test_repeated_step_is_forward", r"step.* differs from forward from position 1 on"),
    Fault(StepDrifts, "test_step_and_extend_share_one_state", "step.* differs from forward from position 6"),
    Fault(ExtendForgetsTheState, "test_extend_in_any_chunks_is_forward", "extend in chunks of .* differs"),
    Fault(StateRowsMix, "test_state_rows_can_be_dropped_and_reordered", r"rows \[2, 0\] of the state"),
    Fault(StepChangesItsState, "test_a_given_state_stays_as_it_was", "step changes the given state in place"),
    Fault(DependsOnTheBatch, "test_a_row_does_not_depend_on_the_other_rows", "row 0 alone and in a batch"),
    Fault(
        StateIsNotBatchFirst,
        "test_dimension_0_of_every_state_tensor_is_the_batch",
        r"shape \(1,\).* batch size 3",
    ),
    Fault(StateIsDetached, "test_gradients_flow_through_the_state", "gradient of .* through two chunks"),
    Fault(InitialStateIgnoresDtype, "test_initial_state_is_made_as_asked", "dtype=float64.* torch.float32"),
    Fault(ParameterIsUnused, "test_gradients_reach_every_parameter", "no gradient reaches gain"),
    Fault(GradientIsWrong, "test_gradients_agree_with_finite_differences", "backward is not the derivative"),
    Fault(WeightsAreHidden, "test_state_dict_holds_all_that_outputs_depend_on", "not in the state_dict"),
    Fault(EvaluationIsRandom, "test_evaluation_is_deterministic", "two calls in eval mode"),
    Fault(InputsAreChanged, "test_inputs_are_not_changed", "changes its inputs in place"),
    Fault(StridesAreIgnored, "test_inputs_need_not_be_contiguous", "strided copy of the inputs differ"),
    Fault(ViewNeedsContiguousInputs, "test_inputs_need_not_be_contiguous", r"use \.reshape"),
    Fault(BreaksAtOneToken, "test_output_has_the_promised_shape_and_dtype", r"not finite.*\(3, 1, 8\)"),
    Fault(RefusesOneToken, "test_output_has_the_promised_shape_and_dtype", r"while running .*\(3, 1, 8\)"),
    Fault(WrongAtEvenLengths, "test_a_shorter_sequence_gives_the_same_outputs", "the first 2 of 13 tokens"),
    Fault(WrongAtOddLengths, "test_a_shorter_sequence_gives_the_same_outputs", "the first 1 of 13 tokens"),
    Fault(ComputesInFloat32, "test_float64_is_computed_in_float64", "float32 somewhere inside"),
    Fault(PackingIsIgnored, "test_packed_sequences_are_as_if_each_came_alone", "packed by .* differ from"),
    Fault(PackedStatesAreSwapped, "test_packed_chunks_go_on_from_their_own_states", "state of row 0 after a"),
    Fault(LastTokenOnly, "test_output_has_the_promised_shape_and_dtype", r"shape \(3, 8\), expected \(3, 1,"),
    Fault(MixesWithoutState, "test_without_state_each_position_stands_alone", "init_state"),
    Fault(BreaksTheGraph, "test_compiles_to_one_graph", "torch.compile"),
    Fault(BreaksTheGraph, "test_exports_to_one_graph", "torch.export"),
    Fault(NeedsMore, "test_inputs_are_not_changed", "requires n_heads.* declare examples"),
)
