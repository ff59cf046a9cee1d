"""The suite of optimizers passes a correct optimizer and catches each of these faults."""

import inspect

import pytest
import torch
from torch.optim import Optimizer

from helix_kernel.testing.optimizers import OptimizerSuite


class Correct(Optimizer):
    """Momentum as the protocol wants it; each fault below breaks one thing."""

    def __init__(self, params, lr=0.01, momentum=0.9, decay=0.1):
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay, "foreach": None})

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
        gradient = gradient + group["decay"] * weight
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
        super().update(weight, -gradient, {**group, "decay": 0.0})


class ForeachForgetsDecay(Correct):
    def update(self, weight, gradient, group):
        super().update(weight, gradient, {**group, "decay": 0.0} if group["foreach"] else group)


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
        weight.mul_(1 - group["lr"] * group["decay"])
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


FAULTS = {
    ForgetsItsBuffer: "test_resumes_to_the_bit",
    CountsOutsideItsState: "test_resumes_to_the_bit",
    Ascends: "test_lowers_a_quadratic",
    ForeachForgetsDecay: "test_foreach_and_loop_agree",
    IgnoresGroups: "test_groups_keep_to_their_own_learning_rate",
    RemembersTheFirstRate: "test_a_changed_learning_rate_counts",
    SeesOnlyTheFirstGroup: "test_a_group_may_be_added",
    DecaysWithoutGradient: "test_weights_without_gradient_stay",
    WritesIntoGradients: "test_gradients_are_not_changed",
    ReadsMemoryOrder: "test_memory_layout_does_not_matter",
    DrawsNoise: "test_two_runs_are_equal_to_the_bit",
    LosesTheLoss: "test_closure_is_called_with_gradients_on",
    CallsWithoutGradients: "test_closure_is_called_with_gradients_on",
    WidensWeights: "test_low_precision_weights_keep_their_dtype",
    KeepsAnObject: "test_state_is_plain",
    SharesItsState: "test_loading_a_state_does_not_share_it",
}


def suite_of(optimizer):
    class Suite(OptimizerSuite):
        __test__ = False

        def make_optimizer(self, params):
            return optimizer(params)

    return Suite()


def run(suite, name):
    """Run one case of a suite, as pytest would."""
    case = getattr(suite, name)
    known = {"dtype": "float32"}
    case(**{name: known[name] for name in inspect.signature(case).parameters})


@pytest.mark.parametrize(
    ("fault", "case"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_caught_by_the_case_meant_for_it(fault, case):
    run(suite_of(Correct), case)
    with pytest.raises(AssertionError):
        run(suite_of(fault), case)


class TestCorrect(OptimizerSuite):
    def make_optimizer(self, params):
        return Correct(params)
