"""The suite of losses passes a correct loss and catches each of these faults."""

import inspect

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.exc import TorchDynamoException
from torch.autograd.gradcheck import GradcheckError

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.losses import LossSuite


class Correct(nn.Module):
    """Squared error as the protocol wants it; each fault below breaks one thing."""

    def __init__(self, reduction="mean"):
        super().__init__()
        if reduction not in ("mean", "sum", "none"):
            raise ArgumentError(f"reduction is {reduction!r}")
        self.reduction = reduction

    def forward(self, prediction, target, *, mask=None):
        if prediction.shape != target.shape:
            raise ArgumentError("shapes differ")
        mask = self.check_mask(torch.ones_like(target, dtype=torch.bool) if mask is None else mask, target)
        prediction, target = prediction.masked_fill(~mask, 0), target.masked_fill(~mask, 0)
        return self.reduce(self.elements(prediction, target).masked_fill(~mask, 0), mask)

    def check_mask(self, mask, target):
        if mask.dtype != torch.bool:
            raise ArgumentError("mask is not bool")
        if (
            torch.broadcast_shapes(mask.shape, (1,) * target.dim()) != mask.shape
            and mask.dim() > target.dim()
        ):
            raise ArgumentError("mask does not fit")
        try:
            return mask.expand(target.shape)
        except RuntimeError as error:
            raise ArgumentError("mask does not fit") from error

    def elements(self, prediction, target):
        return (
            (prediction.double() - target.double())
            .square()
            .to(torch.promote_types(prediction.dtype, torch.float32))
        )

    def reduce(self, elements, mask):
        total = elements.sum()
        return {"none": elements, "sum": total, "mean": total / mask.sum().clamp(min=1)}[self.reduction]


class MeanOverAll(Correct):
    def reduce(self, elements, mask):
        return super().reduce(elements, torch.ones_like(mask))


class NanOfNothing(Correct):
    def reduce(self, elements, mask):
        return elements.sum() / mask.sum() if self.reduction == "mean" else super().reduce(elements, mask)


class MasksOnlyTheResult(Correct):
    def forward(self, prediction, target, *, mask=None):
        mask = torch.ones_like(target, dtype=torch.bool) if mask is None else self.check_mask(mask, target)
        if prediction.shape != target.shape:
            raise ArgumentError("shapes differ")
        return self.reduce(self.elements(prediction, target) * mask, mask)


class IgnoresTheMask(Correct):
    def forward(self, prediction, target, *, mask=None):
        return super().forward(prediction, target)


class Broadcasts(Correct):
    def forward(self, prediction, target, *, mask=None):
        return super().forward(*torch.broadcast_tensors(prediction, target), mask=mask)


class SumIsMean(Correct):
    def reduce(self, elements, mask):
        self.reduction = "mean" if self.reduction == "sum" else self.reduction
        return super().reduce(elements, mask)


class WritesIntoThePrediction(Correct):
    def forward(self, prediction, target, *, mask=None):
        loss = super().forward(prediction, target, mask=mask)
        prediction.data.clamp_(-1, 1)
        return loss


class WrongGradient(Correct):
    def elements(self, prediction, target):
        return super().elements(prediction, target) + prediction.detach() * 0.1


class DependsOnTheBatch(Correct):
    def elements(self, prediction, target):
        return super().elements(prediction - prediction.mean(), target)


class Overflows(Correct):
    def elements(self, prediction, target):
        return torch.log1p(torch.exp(super().elements(prediction, target)))


class StaysInHalf(Correct):
    def elements(self, prediction, target):
        return (prediction - target).square()


class LooksAtAValue(Correct):
    def elements(self, prediction, target):
        if target.max().item() > 1e9:
            raise ArgumentError("target is too large")
        return super().elements(prediction, target)


class TakesAnyReduction(Correct):
    def __init__(self, reduction="mean"):
        super().__init__(reduction if reduction in ("mean", "sum", "none") else "mean")


class TakesNumbersAsMask(Correct):
    def check_mask(self, mask, target):
        return super().check_mask(mask.bool(), target)


FAULTS = {
    MeanOverAll: "test_mask_keeps_what_is_true",
    NanOfNothing: "test_a_mask_of_zeros_gives_zero",
    MasksOnlyTheResult: "test_masked_elements_do_not_matter",
    IgnoresTheMask: "test_mask_keeps_what_is_true",
    Broadcasts: "test_a_wrong_shape_is_refused",
    SumIsMean: "test_reductions_agree",
    WritesIntoThePrediction: "test_inputs_are_not_changed",
    WrongGradient: "test_gradient_is_that_of_the_formula",
    DependsOnTheBatch: "test_elements_are_independent",
    Overflows: "test_extreme_predictions_give_finite_losses",
    StaysInHalf: "test_half_precision_is_reduced_in_full",
    LooksAtAValue: "test_is_captured_as_one_graph",
    TakesAnyReduction: "test_an_unknown_reduction_is_refused",
    TakesNumbersAsMask: "test_a_wrong_mask_is_refused",
}


CAUGHT = (AssertionError, pytest.fail.Exception, GradcheckError, TorchDynamoException)


def suite_of(loss):
    class Suite(LossSuite):
        __test__ = False

        def make_loss(self, reduction):
            return loss(reduction)

    return Suite()


def run(suite, name):
    """Run one case of a suite, as pytest would."""
    case = getattr(suite, name)
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(suite.shape, generator=generator) < 0.5
    known = {
        "pair": suite.inputs(dtype=torch.float64),
        "mask": mask,
        "poison": "nan",
        "dtype": "bfloat16",
    }
    case(**{name: known[name] for name in inspect.signature(case).parameters})


@pytest.mark.parametrize(
    ("fault", "case"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_caught_by_the_case_meant_for_it(fault, case):
    run(suite_of(Correct), case)
    with pytest.raises(CAUGHT):
        run(suite_of(fault), case)


class TestCorrect(LossSuite):
    def make_loss(self, reduction):
        return Correct(reduction)


def test_inputs_are_found_by_what_the_loss_takes():
    class Classes(nn.Module):
        def forward(self, prediction, target, *, mask=None):
            if target.is_floating_point():
                raise ArgumentError("target is no class")
            return F.cross_entropy(prediction.flatten(0, 1), target.flatten())

    prediction, target = suite_of(lambda reduction: Classes()).inputs(dtype=torch.float64)
    assert (tuple(prediction.shape), tuple(target.shape)) == ((4, 5, 6), (4, 5))
    prediction, target = suite_of(Correct).inputs(dtype=torch.float64)
    assert prediction.shape == target.shape == (4, 5)


def test_a_loss_that_takes_no_usual_inputs_is_told_so():
    class Picky(nn.Module):
        def forward(self, prediction, target, *, mask=None):
            raise ArgumentError("I want a graph")

    with pytest.raises(AssertionError, match=r"override inputs.*\n.*I want a graph"):
        suite_of(lambda reduction: Picky()).inputs(dtype=torch.float64)
