"""Metrics of chosen classes: accuracy, top-k accuracy, precision, recall and F1."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.losses.checks import check_classes, check_classes_last
from helix_train.metrics.base import Metric, check_logits, classes_of

Average = Literal["macro", "micro", "binary"]


class Accuracy(Metric):
    """Share of targets whose class is the likeliest one.

    Prediction is logits (..., V) and target (...) of any integer dtype, 0 to V - 1; or prediction is one
    logit for each yes or no, and target of the same shape, 0 or 1. Of equal logits the first class counts.

    Args:
        threshold: Logit above which an answer is yes.
    """

    name = "accuracy"

    def __init__(self, *, threshold: float = 0.0) -> None:
        super().__init__()
        self.threshold = threshold

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` unless predictions are logits of classes, or of yes or no."""
        check_logits(prediction, target)

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return how many targets there are, and how many were met."""
        chosen, actual, _ = classes_of(prediction, target, threshold=self.threshold)
        return {"right": (chosen == actual).sum(), "count": torch.tensor(target.numel())}

    def compute(self) -> float:
        """Return the share; nan where there was no target."""
        return self.ratio("right", "count")


class TopKAccuracy(Metric):
    """Share of targets whose class is among the k likeliest ones.

    Prediction is logits (..., V) and target (...) of any integer dtype, 0 to V - 1. Of equal logits the
    first classes count; a NaN counts as likelier than any number, and a target whose own logit is NaN is
    not met.

    Args:
        k: How many classes may be named, at least 1.

    Raises:
        ArgumentError: `k` is below 1, or above the number of classes.
    """

    def __init__(self, *, k: int = 5) -> None:
        super().__init__()
        if k < 1:
            raise ArgumentError(f"k is {k!r}, allowed is >= 1")
        self.k = k
        self.name = f"top_{k}_accuracy"

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` unless predictions are logits of more than k - 1 classes."""
        check_classes_last(prediction, target)
        if prediction.shape[-1] < self.k:
            raise ArgumentError(f"k is {self.k}, allowed is <= {prediction.shape[-1]}, the number of classes")

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return how many targets there are, and how many were among the k likeliest."""
        check_classes(target, prediction.shape[-1])
        index = target.long().unsqueeze(-1)
        own = prediction.gather(-1, index)
        later = torch.arange(prediction.shape[-1], device=prediction.device) >= index
        behind = (prediction < own) | ((prediction == own) & later)
        right = (~behind).sum(-1) < self.k
        return {"right": right.sum(), "count": torch.tensor(target.numel())}

    def compute(self) -> float:
        """Return the share; nan where there was no target."""
        return self.ratio("right", "count")


class ClassMetric(Metric):
    """What precision, recall and F1 share: counts for each class, and an average over classes.

    With tp, predicted and actual, the numbers of targets of a class that were met, of predictions of it,
    and of targets of it, the subclass gives a share of two sums of them. Prediction and target are as for
    `Accuracy`.

    Args:
        average: ``macro``: the mean over classes that occur among targets or predictions; ``micro``: of
            the counts of all classes together; ``binary``: of one class alone.
        positive: That class, for ``binary``.
        zero_division: The value of a class whose share is 0 of 0, as where nothing was predicted to be it.
        threshold: Logit above which an answer is yes.

    Raises:
        ArgumentError: There is no such average, or `positive` is below 0.
    """

    kind: str

    def __init__(
        self,
        *,
        average: Average = "macro",
        positive: int = 1,
        zero_division: float = 0.0,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        known = get_args(Average)
        if average not in known:
            hint = did_you_mean(str(average), known)
            raise ArgumentError(f"average is {average!r}, allowed is one of {known}.{hint}")
        if positive < 0:
            raise ArgumentError(f"positive is {positive!r}, allowed is >= 0: the number of a class")
        self.average = average
        self.positive = positive
        self.zero_division = zero_division
        self.threshold = threshold
        self.name = f"{self.kind}_{average}"

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` unless predictions are logits of classes, or of yes or no."""
        check_logits(prediction, target)

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the three counts of each class."""
        chosen, actual, n = classes_of(prediction, target, threshold=self.threshold)
        if self.average == "binary" and self.positive >= n:
            raise ArgumentError(f"positive is {self.positive}, allowed is 0 to {n - 1} for {n} classes")
        return {
            "met": torch.bincount(actual[chosen == actual], minlength=n),
            "predicted": torch.bincount(chosen, minlength=n),
            "actual": torch.bincount(actual, minlength=n),
        }

    def compute(self) -> float:
        """Return the average; nan where there was no target."""
        sums = self.state()
        if not sums or not sums["actual"].sum():
            return float("nan")
        met, predicted, actual = sums["met"], sums["predicted"], sums["actual"]
        if self.average == "micro":
            met, predicted, actual = met.sum(), predicted.sum(), actual.sum()
        elif self.average == "binary":
            met, predicted, actual = met[self.positive], predicted[self.positive], actual[self.positive]
        above, below = self.share(met, predicted, actual)
        values = torch.where(below > 0, above / below.clamp(min=1).double(), self.zero_division)
        return float(values[(predicted + actual) > 0].mean() if self.average == "macro" else values)

    @abstractmethod
    def share(self, met: Tensor, predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is divided by what, for each class."""


class Precision(ClassMetric):
    """Share of the predictions of a class that were right: met / predicted; see `ClassMetric`."""

    kind = "precision"

    def share(self, met: Tensor, predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - the base's signature
        """Return what is divided by what, for each class."""
        return met, predicted


class Recall(ClassMetric):
    """Share of the targets of a class that were found: met / actual; see `ClassMetric`."""

    kind = "recall"

    def share(self, met: Tensor, predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ARG002 - the base's signature
        """Return what is divided by what, for each class."""
        return met, actual


class F1(ClassMetric):
    """Harmonic mean of precision and recall: 2 met / (predicted + actual); see `ClassMetric`."""

    kind = "f1"

    def share(self, met: Tensor, predicted: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is divided by what, for each class."""
        return 2 * met, predicted + actual
