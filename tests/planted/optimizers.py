"""Optimizers with one fault each."""

from __future__ import annotations

import torch
from torch.optim import Optimizer

from planted.faults import Fault


class Correct(Optimizer):
    """Momentum as the protocol wants it; each fault below breaks one thing."""

    def __init__(self, params, lr=0.01, momentum=0.9, weight_decay=0.1):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "foreach": None}
        )

    def step(self, closure=None):
        loss = None if closure is None else self.call(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for weight in group["params"]:
                    self.visit(weight, group)
        return loss

    def call(self, closure):
        with torch.enable_grad():
            return closure()

    def visit(self, weight, group):
        if weight.grad is not None:
            self.update(weight, weight.grad, group)

    def update(self, weight, gradient, group):
        state = self.state[weight]
        gradient = gradient + group["weight_decay"] * weight
        state["m"] = group["momentum"] * state.get("m", torch.zeros_like(weight)) + gradient
        weight.sub_(state["m"], alpha=group["lr"])


class ForgetsItsBuffer(Correct):
    def state_dict(self):
        return {**super().state_dict(), "state": {}}


class CountsOutsideItsState(Correct):
    n_steps = 0

    def step(self, closure=None):
        self.n_steps += 1
        return super().step(closure)

    def update(self, weight, gradient, group):
        super().update(weight, gradient / self.n_steps, group)


class Ascends(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, -gradient, {**group, "weight_decay": 0.0})


class ForeachForgetsDecay(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, {**group, "weight_decay": 0.0} if group["foreach"] else group)


class IgnoresGroups(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, {**group, "lr": self.defaults["lr"]})


class RemembersTheFirstRate(Correct):
    def update(self, weight, gradient, group):
        rate = self.state[weight].setdefault("lr", group["lr"])
        super().update(weight, gradient, {**group, "lr": rate})


class SeesOnlyTheFirstGroup(Correct):
    def visit(self, weight, group):
        if group is self.param_groups[0]:
            super().visit(weight, group)


class DecaysWithoutGradient(Correct):
    def visit(self, weight, group):
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        super().visit(weight, group)


class WritesIntoGradients(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient.add_(weight), group)


class ReadsMemoryOrder(Correct):
    def update(self, weight, gradient, group):
        order = torch.as_strided(gradient, (gradient.numel(),), (1,))
        super().update(weight, order.view(weight.shape) if weight.dim() else gradient, group)


class DrawsNoise(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient + 1e-3 * torch.randn_like(gradient), group)


class LosesTheLoss(Correct):
    def step(self, closure=None):
        super().step(closure)


class CallsWithoutGradients(Correct):
    def call(self, closure):
        with torch.no_grad():
            return closure()


class WidensWeights(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, group)
        weight.data = weight.data.float()


class KeepsAnObject(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, group)
        self.state[weight]["shape"] = torch.device("cpu")


class SharesItsState(Correct):
    shared = {}  # noqa: RUF012 - the fault

    def update(self, weight, gradient, group):
        self.state[weight]["m"] = self.shared.setdefault(weight.shape, torch.zeros_like(weight))
        self.shared[weight.shape].add_(gradient)
        weight.sub_(gradient, alpha=group["lr"])


class SharesStateBetweenGroups(Correct):
    def __init__(self, params):
        super().__init__(params)
        self.by_shape = {}

    def update(self, weight, gradient, group):
        self.state[weight] = self.by_shape.setdefault(weight.shape, {})
        super().update(weight, gradient, group)


class DecayIsTheDefault(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, {**group, "weight_decay": self.defaults["weight_decay"]})


class NeedsEveryGradient(Correct):
    def visit(self, weight, group):
        self.update(weight, weight.grad, group)


class IgnoresTheClosure(Correct):
    def step(self, closure=None):
        return super().step()


class RemovesGradients(Correct):
    def step(self, closure=None):
        loss = super().step(closure)
        self.zero_grad()
        return loss


class DividesByZero(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient / gradient.to(torch.float16).sub(gradient).abs(), group)


class AddsAKey(Correct):
    def state_dict(self):
        return {**super().state_dict(), "n_steps": 3}


FAULTS = (
    Fault(Ascends, "test_lowers_a_quadratic", "100 steps took a sum of squares from .* to .*, expected less"),
    Fault(
        ForgetsItsBuffer, "test_resumes_to_the_bit", "weight 0: 5 steps, state_dict, .* state_dict leaves out"
    ),
    Fault(
        CountsOutsideItsState, "test_resumes_to_the_bit", "weight 0: 5 steps, state_dict, .* differ from 10"
    ),
    Fault(
        SharesItsState,
        "test_loading_a_state_does_not_share_it",
        r"changed the first one's state_dict\['state'\]",
    ),
    Fault(DrawsNoise, "test_two_runs_are_equal_to_the_bit", r"differ after 5 steps, by .* \(weight 0\)"),
    Fault(ForeachForgetsDecay, "test_foreach_and_loop_agree", "weight 0: foreach differs from the loop by"),
    Fault(IgnoresGroups, "test_groups_keep_to_their_own_learning_rate", "a group with lr=0 moved, by"),
    Fault(
        DecayIsTheDefault,
        "test_groups_keep_to_their_own_weight_decay",
        "weight_decay 0 and 0.5 are equal after",
    ),
    Fault(
        RemembersTheFirstRate, "test_a_changed_learning_rate_counts", "move after a schedule set lr to 0, by"
    ),
    Fault(SeesOnlyTheFirstGroup, "test_a_group_may_be_added", "the added group did not move in 5 steps"),
    Fault(SharesStateBetweenGroups, "test_a_group_may_be_added", "adding a group changed another, by"),
    Fault(DecaysWithoutGradient, "test_weights_without_gradient_stay", "whose grad is None moved, by"),
    Fault(
        NeedsEveryGradient,
        "test_weights_without_gradient_stay",
        "step raises TypeError where .* grad is None",
    ),
    Fault(WritesIntoGradients, "test_gradients_are_not_changed", "step changed the gradient of weight 0 by"),
    Fault(RemovesGradients, "test_gradients_are_not_changed", "step removed the gradient of weight 0"),
    Fault(
        ReadsMemoryOrder, "test_memory_layout_does_not_matter", "transposed weight is updated differently, by"
    ),
    Fault(
        LosesTheLoss,
        "test_closure_is_called_with_gradients_on",
        "does not return what the closure returned: None",
    ),
    Fault(IgnoresTheClosure, "test_closure_is_called_with_gradients_on", "does not return what the closure"),
    Fault(
        CallsWithoutGradients,
        "test_closure_is_called_with_gradients_on",
        "closure is called without gradients",
    ),
    Fault(WidensWeights, "test_low_precision_weights_keep_their_dtype", "weight 0 became torch.float32"),
    Fault(
        DividesByZero, "test_low_precision_weights_keep_their_dtype", "elements of weight 0 are not finite"
    ),
    Fault(KeepsAnObject, "test_state_is_plain", r"\['shape'\] is of <class 'torch.device'>"),
    Fault(AddsAKey, "test_state_is_plain", r"state_dict has the keys \['n_steps', "),
)
