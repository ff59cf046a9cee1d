"""Metrics of the difference between two tensors of one shape."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_train.metrics.base import Metric


class MeanAbsoluteError(Metric):
    """Mean of abs(prediction - target), which have one shape."""

    name = "mean_absolute_error"

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return how many elements there are, and the sum of their absolute differences."""
        return {"sum": _difference(prediction, target).abs().sum(), "count": torch.tensor(target.numel())}

    def compute(self) -> float:
        """Return the mean; nan where there was no element."""
        return self.ratio("sum", "count")


class MeanSquaredError(Metric):
    """Mean of (prediction - target)**2, which have one shape."""

    name = "mean_squared_error"

    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return how many elements there are, and the sum of their squared differences."""
        return {"sum": _difference(prediction, target).square().sum(), "count": torch.tensor(target.numel())}

    def compute(self) -> float:
        """Return the mean; nan where there was no element."""
        return self.ratio("sum", "count")


def _difference(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the differences in float64 on the CPU, where every device's sums are the same."""
    return prediction.cpu().double() - target.cpu().double()
