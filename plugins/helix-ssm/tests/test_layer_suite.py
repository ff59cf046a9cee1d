"""The layer conformance suite passes a sound layer and catches each of these planted faults."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from helix_kernel.testing.layers import LayerSuite


class LeakySum(nn.Module):
    """h_t = decay h_{t-1} + x_t, y_t = W h_t: the smallest sound layer with a state."""

    def __init__(self, d_model=8):
        super().__init__()
        self.decay = nn.Parameter(torch.rand(d_model))
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x):
        return self.extend(x, self.init_state(len(x), device=x.device, dtype=x.dtype))[0]

    def init_state(self, batch_size, *, device=None, dtype=None):
        return {"h": self.decay.new_zeros(batch_size, self.decay.numel(), device=device, dtype=dtype)}

    def extend(self, x, state):
        outputs = [torch.empty_like(x[:, :0])]
        for x_t in x.unbind(1):
            y_t, state = LeakySum.step(self, x_t, state)
            outputs.append(y_t.unsqueeze(1))
        return torch.cat(outputs, dim=1), state

    def step(self, x_t, state):
        h = self.decay * state["h"] + x_t
        return self.out_proj(h), {"h": h}


class PeeksAtTheFuture(LeakySum):
    def forward(self, x):
        return super().forward(x + 1e-6 * x.roll(-1, dims=1))


class StepDrifts(LeakySum):
    def step(self, x_t, state):
        y_t, state = super().step(x_t, state)
        return y_t, {"h": state["h"] * (1 + 1e-6)}


class ExtendForgetsTheState(LeakySum):
    def extend(self, x, state):
        return super().extend(x, self.init_state(len(x), dtype=x.dtype))


class StateRowsMix(LeakySum):
    def extend(self, x, state):
        y, state = super().extend(x, state)
        return y, {"h": state["h"].flip(0)}

    def forward(self, x):
        return LeakySum.extend(self, x, self.init_state(len(x), dtype=x.dtype))[0]


class StepChangesItsState(LeakySum):
    def step(self, x_t, state):
        state["h"].mul_(self.decay.detach()).add_(x_t)
        return self.out_proj(state["h"]), {"h": state["h"]}


class RowsMix(LeakySum):
    def forward(self, x):
        return super().forward(x - 1e-6 * x.mean(0))


class StateIsNotBatchFirst(LeakySum):
    def init_state(self, batch_size, *, device=None, dtype=None):
        return {**super().init_state(batch_size, device=device, dtype=dtype), "position": torch.zeros(1)}

    def extend(self, x, state):
        return super().extend(x, state)[0], {**state, "position": state["position"] + x.shape[1]}


class StateIsDetached(LeakySum):
    def extend(self, x, state):
        y, state = super().extend(x, state)
        return y, {"h": state["h"].detach()}


class ParameterIsUnused(LeakySum):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(8))


class GradientIsWrong(LeakySum):
    def forward(self, x):
        y = super().forward(x)
        return y + 0.1 * (y.detach() - y)


class WeightsAreHidden(LeakySum):
    def __init__(self):
        super().__init__()
        self.hidden = torch.randn(8)

    def forward(self, x):
        return super().forward(x + self.hidden.to(x.dtype))


class EvaluationIsRandom(LeakySum):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), p=0.5)


class InputsAreChanged(LeakySum):
    def forward(self, x):
        return super().forward(x.mul_(2))


class StridesAreIgnored(LeakySum):
    def forward(self, x):
        return super().forward(x.as_strided(x.shape, (x.shape[1] * x.shape[2], x.shape[2], 1)))


class LastTokenOnly(LeakySum):
    def forward(self, x):
        return super().forward(x)[:, -1]


class MixesWithoutState(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        return self.scale * x.cumsum(1)


class BreaksTheGraph(LeakySum):
    def forward(self, x):
        return super().forward(x) * (2.0 if x.sum().item() > 0 else 1.0)


class PackedRowsLeak(LeakySum):
    """Goes on over the bounds of packed sequences."""

    def forward(self, x, *, cu_seqlens=None):
        return super().forward(x)


class PackedStatesAreSwapped(LeakySum):
    def forward(self, x, *, cu_seqlens=None):
        return super().forward(x)

    def extend(self, x, state, *, cu_seqlens=None):
        if cu_seqlens is None:
            return super().extend(x, state)
        chunks = [x[:, start:end] for start, end in itertools.pairwise(cu_seqlens.tolist())]
        rows = [
            super(PackedStatesAreSwapped, self).extend(c, {"h": h})
            for c, h in zip(chunks, state["h"][:, None], strict=True)
        ]
        return torch.cat([y for y, _ in rows], dim=1), {"h": torch.cat([s["h"] for _, s in rows]).flip(0)}


class LooksAheadAndSaysSo(nn.Module):
    """Excused from causality by its attribute, and from nothing else."""

    causal = False

    def __init__(self, d_model=8):
        super().__init__()
        self.out_proj = nn.Linear(d_model, d_model)

    def forward(self, x):
        return self.out_proj(x + x.mean(1, keepdim=True))


class TestALayerThatLooksAhead(LayerSuite):
    def make_layer(self):
        return LooksAheadAndSaysSo(self.d_model)


class TestASoundLayer(LayerSuite):
    def make_layer(self):
        return LeakySum(self.d_model)


FAULTS = [
    (PeeksAtTheFuture, "the_future_does_not_change_the_past", AssertionError),
    (StepDrifts, "repeated_step_is_forward", AssertionError),
    (StepDrifts, "step_and_extend_share_one_state", AssertionError),
    (ExtendForgetsTheState, "extend_in_any_chunks_is_forward", AssertionError),
    (StateRowsMix, "state_rows_can_be_dropped_and_reordered", AssertionError),
    (StepChangesItsState, "a_given_state_stays_as_it_was", AssertionError),
    (RowsMix, "a_row_does_not_depend_on_the_other_rows", AssertionError),
    (StateIsNotBatchFirst, "dimension_0_of_every_state_tensor_is_the_batch", AssertionError),
    (StateIsDetached, "gradients_flow_through_the_state", AssertionError),
    (ParameterIsUnused, "gradients_reach_every_parameter", AssertionError),
    (GradientIsWrong, "gradients_agree_with_finite_differences", RuntimeError),
    (WeightsAreHidden, "state_dict_holds_all_that_outputs_depend_on", AssertionError),
    (EvaluationIsRandom, "evaluation_is_deterministic", AssertionError),
    (InputsAreChanged, "inputs_are_not_changed", AssertionError),
    (StridesAreIgnored, "inputs_need_not_be_contiguous", AssertionError),
    (LastTokenOnly, "output_has_the_promised_shape_and_dtype", AssertionError),
    (MixesWithoutState, "without_state_each_position_stands_alone", AssertionError),
    (BreaksTheGraph, "compiles_to_one_graph", torch._dynamo.exc.TorchDynamoException),
    (BreaksTheGraph, "exports_to_one_graph", Exception),
    (PackedRowsLeak, "packed_sequences_are_as_if_each_came_alone", AssertionError),
    (PackedStatesAreSwapped, "packed_chunks_go_on_from_their_own_states", AssertionError),
]


@pytest.mark.parametrize(("fault", "test", "error"), FAULTS)
def test_a_planted_fault_is_caught(fault, test, error):
    class Suite(LayerSuite):
        def make_layer(self):
            return fault()

    suite = Suite()
    case = getattr(suite, f"test_{test}")
    arguments = {"dtype": "float64", "seed": 0, "seq_len": 13}
    wanted = {name: value for name, value in arguments.items() if name in case.__annotations__}
    with pytest.raises(error):
        case(suite._seeded_layer(0), **wanted)
