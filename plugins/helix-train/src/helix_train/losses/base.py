"""What all losses share: one value an element, a mask, and a reduction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_train.losses.checks import broadcast_mask

Reduction = Literal["mean", "sum", "none"]


class Loss(nn.Module, ABC):
    """A loss that is a sum over the elements of the target.

    A subclass computes `elements`, and checks its arguments in `check`.

    Args:
        reduction: ``mean`` or ``sum`` over the elements that the mask keeps, or ``none``.

    Raises:
        ArgumentError: There is no such reduction.
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        known = get_args(Reduction)
        if reduction not in known:
            raise ArgumentError(
                f"reduction is {reduction!r}, allowed is one of {known}.{did_you_mean(str(reduction), known)}"
            )
        self.reduction = reduction

    def forward(self, prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            prediction: Floating; the subclass says its shape. Half precision is computed in float32.
            target: The subclass says its shape and dtype.
            mask: Bool, broadcast to the target's shape: True keeps an element. What lies under
                False counts for nothing, be it NaN or out of range; nor does it get a gradient.

        Returns:
            A scalar, or with ``reduction="none"`` the target's shape with 0 under False. The mean is
            over elements and not over rows, so a row that is masked throughout is as if it were not
            there; over no elements at all it is 0.

        Raises:
            ArgumentError: A shape, dtype or value does not fit.
        """
        if not prediction.is_floating_point():
            raise ArgumentError(f"prediction has dtype {prediction.dtype}, allowed is a floating one")
        self.check_shapes(prediction, target)
        if prediction.dtype in (torch.float16, torch.bfloat16):
            prediction = prediction.float()
        if mask is None:
            self.check_values(target, prediction)
            if self.reduction == "mean" and target.numel() > 0:
                return self.mean(prediction, target)
            return self._reduce(self.elements(prediction, target), None)
        mask = broadcast_mask(mask, target)
        target = target.masked_fill(~mask, 0)
        self.check_values(target, prediction)
        hidden = ~mask.reshape(mask.shape + (1,) * (prediction.dim() - mask.dim()))
        elements = self.elements(prediction.masked_fill(hidden, 0), target)
        return self._reduce(elements.masked_fill(~mask, 0), mask)

    @abstractmethod
    def elements(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return one loss an element, in the target's shape."""

    def mean(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Return the mean of `elements`, of which there is one at least; a subclass may know a faster way."""
        return self.elements(prediction, target).mean()

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` where the shapes do not fit: by default they must be equal."""
        if prediction.shape != target.shape:
            raise ArgumentError(
                f"target has shape {tuple(target.shape)} and prediction {tuple(prediction.shape)}; "
                "they must be equal: nothing is broadcast"
            )

    def check_values(self, target: Tensor, prediction: Tensor) -> None:
        """Raise `ArgumentError` where the target's dtype or values do not fit: by default all do."""

    def extra_repr(self) -> str:
        """Return what ``print`` shows."""
        return f"reduction={self.reduction!r}"

    def _reduce(self, elements: Tensor, mask: Tensor | None) -> Tensor:
        if self.reduction == "none":
            return elements
        if self.reduction == "sum":
            return elements.sum()
        n_kept = elements.numel() if mask is None else mask.sum()
        return elements.sum() / (max(n_kept, 1) if isinstance(n_kept, int) else n_kept.clamp(min=1))
