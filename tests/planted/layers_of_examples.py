"""Layers that make inputs of their own, with one fault each."""

from __future__ import annotations

import random

import torch
from torch import nn

from planted.faults import Fault


class TwoParts(nn.Module):
    """A linear map of two parts by name: the smallest sound layer that takes no single tensor."""

    causal = False

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(d_model, 3), nn.Linear(2, 3, bias=False)
        self.d_model = d_model

    def forward(self, inputs):
        return self.left(inputs["left"]) * self.right(inputs["right"])

    def example_inputs(self, batch_size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        return {
            "left": torch.randn(batch_size, self.d_model, generator=generator),
            "right": torch.randn(batch_size, 2, generator=generator),
        }


class ExamplesAreDrawnAnew(TwoParts):
    def example_inputs(self, batch_size, *, seed):
        return super().example_inputs(batch_size, seed=random.randrange(1 << 30))


class ExamplesNeverDiffer(TwoParts):
    def example_inputs(self, batch_size, *, seed):
        return super().example_inputs(batch_size, seed=0)


class DividesByZero(TwoParts):
    def forward(self, inputs):
        return super().forward(inputs) / (inputs["left"].shape[0] - 5)


class PartsAreChanged(TwoParts):
    def forward(self, inputs):
        inputs["right"].mul_(2)
        return super().forward(inputs)


class EvaluationIsRandomToo(TwoParts):
    def forward(self, inputs):
        return super().forward(inputs) + torch.rand(())


class WeightsAreHiddenToo(TwoParts):
    def __init__(self, d_model: int) -> None:
        super().__init__(d_model)
        self.hidden = torch.randn(3)

    def forward(self, inputs):
        return super().forward(inputs) + self.hidden.to(inputs["left"].dtype)


class RightIsUnused(TwoParts):
    def forward(self, inputs):
        return self.left(inputs["left"])


class GradientIsWrongToo(TwoParts):
    def forward(self, inputs):
        y = super().forward(inputs)
        return y + 0.1 * (y - y.detach())


FAULTS = (
    Fault(ExamplesAreDrawnAnew, "test_of_examples_depend_on_the_seed_alone", "gives two things"),
    Fault(ExamplesNeverDiffer, "test_of_examples_depend_on_the_seed_alone", "the same for seeds 0 and 1"),
    Fault(DividesByZero, "test_of_examples_give_finite_outputs", "outputs are not finite"),
    Fault(PartsAreChanged, "test_of_examples_are_not_changed", "changes its inputs in place"),
    Fault(EvaluationIsRandomToo, "test_of_examples_evaluation_is_deterministic", "two calls in eval mode"),
    Fault(
        WeightsAreHiddenToo,
        "test_of_examples_state_dict_holds_all_that_outputs_depend_on",
        "not in the state_dict",
    ),
    Fault(RightIsUnused, "test_of_examples_gradients_reach_every_parameter", "no gradient reaches right"),
    Fault(
        GradientIsWrongToo,
        "test_of_examples_gradients_agree_with_finite_differences",
        "backward is not the derivative",
    ),
)
