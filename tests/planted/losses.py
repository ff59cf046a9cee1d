"""Losses with one fault each."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from helix_kernel.errors import ArgumentError
from planted.faults import Fault


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


class OneElementARow(Correct):
    def reduce(self, elements, mask):
        return elements.mean(-1) if self.reduction == "none" else super().reduce(elements, mask)


class MeanIsAVector(Correct):
    def reduce(self, elements, mask):
        return (
            super().reduce(elements, mask)[None]
            if self.reduction == "mean"
            else super().reduce(elements, mask)
        )


class SumForgetsTheMask(Correct):
    def forward(self, prediction, target, *, mask=None):
        return super().forward(prediction, target, mask=None if self.reduction == "sum" else mask)


class MaskMustHaveTheShape(Correct):
    def check_mask(self, mask, target):
        return mask if mask.shape == target.shape else torch.ones_like(target, dtype=torch.bool)


class GradientOverflows(Correct):
    def elements(self, prediction, target):
        return (1 + (2 * (prediction - target).abs()).exp()).log().clamp(max=100)


class ComputesInFloat32(Correct):
    def elements(self, prediction, target):
        return super().elements(prediction.float(), target).to(prediction.dtype)


class GivesFloat32(Correct):
    def elements(self, prediction, target):
        return super().elements(prediction, target).float()


class DependsOnTheOrderOfRows(Correct):
    def elements(self, prediction, target):
        places = torch.arange(len(target), dtype=target.dtype)[:, None]
        return super().elements(prediction, target) * (1 + 1e-6 * places)


class StridesAreIgnored(Correct):
    def forward(self, prediction, target, *, mask=None):
        dense = prediction.as_strided(prediction.shape, (prediction.shape[-1], 1))
        return super().forward(dense, target, mask=mask)


class ScaleIsHidden(Correct):
    n_made = 0

    def __init__(self, reduction="mean"):
        super().__init__(reduction)
        type(self).n_made += 1
        self.scale = self.n_made

    def elements(self, prediction, target):
        return self.scale * super().elements(prediction, target)


class Classes(Correct):
    """Cross-entropy of logits against classes."""

    def forward(self, prediction, target, *, mask=None):
        if prediction.dim() < 2 or prediction.shape[:-1] != target.shape or target.is_floating_point():
            raise ArgumentError("prediction must be (..., V), target (...) classes")
        mask = self.check_mask(torch.ones_like(target, dtype=torch.bool) if mask is None else mask, target)
        prediction, target = prediction.masked_fill(~mask[..., None], 0), target.masked_fill(~mask, 0)
        self.check_range(prediction, target)
        return self.reduce(self.elements(prediction, target).masked_fill(~mask, 0), mask)

    def check_range(self, prediction, target):
        if not torch.compiler.is_compiling() and not ((target >= 0) & (target < prediction.shape[-1])).all():
            raise ArgumentError(f"classes must be 0 to {prediction.shape[-1] - 1}")

    def elements(self, prediction, target):
        wide = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        return F.cross_entropy(wide.flatten(0, -2), target.flatten(), reduction="none").view(target.shape)


class RangeIsNotChecked(Classes):
    def check_range(self, prediction, target):
        pass

    def elements(self, prediction, target):
        return super().elements(prediction, target.clamp(0, prediction.shape[-1] - 1))


class RangeIsLeftToTorch(Classes):
    def check_range(self, prediction, target):
        pass


FAULTS = (
    Fault(
        MeanOverAll,
        "test_mask_keeps_what_is_true",
        r"the mean is not over the elements that are kept \(9 of 20\)",
    ),
    Fault(IgnoresTheMask, "test_mask_keeps_what_is_true", "masked elements are not 0"),
    Fault(
        SumForgetsTheMask, "test_mask_keeps_what_is_true", "the sum is not over the elements that are kept"
    ),
    Fault(MaskMustHaveTheShape, "test_mask_is_broadcast", r"shape \(1, 5\) is not broadcast"),
    Fault(NanOfNothing, "test_a_mask_of_zeros_gives_zero", "mean over no elements is nan, expected 0"),
    Fault(
        MasksOnlyTheResult, "test_masked_elements_do_not_matter", r"masked elements \(nan\) change the loss"
    ),
    Fault(OneElementARow, "test_reductions_agree", r"'none' gives shape \(4,\), the target has \(4, 5\)"),
    Fault(SumIsMean, "test_reductions_agree", "the sum is not the sum of the elements: they differ by"),
    Fault(MeanIsAVector, "test_is_a_finite_scalar_by_default", r"has shape \(1,\), expected a scalar"),
    Fault(Broadcasts, "test_a_wrong_shape_is_refused", r"takes a target of shape \(1, 5\) beside .*\(4, 5\)"),
    Fault(
        RangeIsNotChecked,
        "test_a_class_out_of_range_is_refused",
        "takes the class -1 where allowed is 0 to 5",
    ),
    Fault(
        RangeIsLeftToTorch, "test_a_class_out_of_range_is_refused", "but by IndexError: .*raise ArgumentError"
    ),
    Fault(TakesNumbersAsMask, "test_a_wrong_mask_is_refused", "takes a mask of numbers"),
    Fault(
        TakesAnyReduction,
        "test_an_unknown_reduction_is_refused",
        "reduction='avg'.*must raise an ArgumentError",
    ),
    Fault(
        WritesIntoThePrediction,
        "test_inputs_are_not_changed",
        r"wrote into its prediction: \d+ of 20 changed",
    ),
    Fault(WrongGradient, "test_gradient_is_that_of_the_formula", "backward is not the derivative of forward"),
    Fault(DependsOnTheBatch, "test_elements_are_independent", "row 0 alone and in a batch differ"),
    Fault(DependsOnTheOrderOfRows, "test_elements_are_independent", "row 1 alone and in a batch differ"),
    Fault(StridesAreIgnored, "test_inputs_need_not_be_contiguous", "strided inputs change reduction='mean'"),
    Fault(Overflows, "test_extreme_predictions_give_finite_losses", r"size 10000 give a loss of inf"),
    Fault(
        GradientOverflows,
        "test_extreme_predictions_give_finite_losses",
        "gradient that is not finite in .* of 20",
    ),
    Fault(
        StaysInHalf, "test_half_precision_is_reduced_in_full", "loss of float16 predictions is .* use float32"
    ),
    Fault(ComputesInFloat32, "test_float64_is_computed_in_float64", "rounds to float32 somewhere inside"),
    Fault(GivesFloat32, "test_float64_is_computed_in_float64", "give a loss of torch.float32"),
    Fault(ScaleIsHidden, "test_state_dict_round_trip", "with another's state gives another value"),
    Fault(LooksAtAValue, "test_is_captured_as_one_graph", "does not get one graph of the loss"),
)
