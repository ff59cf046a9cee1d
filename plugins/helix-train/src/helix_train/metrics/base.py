"""What all metrics share: sums over what the mask keeps, which add up across batches and processes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError
from helix_train.losses.checks import broadcast_mask, check_classes, check_classes_last

if TYPE_CHECKING:
    from collections.abc import Mapping


class Metric(ABC):
    """A number that follows from sums over the elements of the targets.

    A subclass gives one batch's sums in `measure`, and makes the number of the sums of all in `compute`. So
    a metric is the same however the elements were laid out in batches, or over processes: what `state`
    returns of each adds up, by `merge`, to the state of one process that has seen all. A metric whose value
    depends on the dataset too has a method ``begin(dataset)``, called before the first batch.

    Attributes:
        name: What the value is recorded under, such as ``f1_macro``.
    """

    name: str

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def update(self, prediction: Tensor, target: Tensor, *, mask: Tensor | None = None) -> None:
        """Let a batch count.

        Args:
            prediction: Floating, such as logits; the subclass says its shape.
            target: The subclass says its shape and dtype.
            mask: Bool, broadcast to the target's shape: True keeps an element. What lies under False
                counts for nothing, be it NaN or out of range.

        Raises:
            ArgumentError: A shape, dtype or value does not fit.
        """
        if not prediction.is_floating_point():
            raise ArgumentError(f"prediction has dtype {prediction.dtype}, allowed is a floating one")
        self.check_shapes(prediction, target)
        target = target.to(prediction.device)
        kept: Tensor = torch.ones_like(target, dtype=torch.bool)
        if mask is not None:
            kept = broadcast_mask(mask.to(target.device), target)
        prediction, target = prediction.detach()[kept], target.detach()[kept]
        if prediction.dtype in (torch.float16, torch.bfloat16):
            prediction = prediction.float()
        self.merge(self.measure(prediction, target))

    @abstractmethod
    def measure(self, prediction: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return the sums of some elements.

        Args:
            prediction: (n,), or (n, V) where it has an axis of classes.
            target: (n,).

        Returns:
            The same names and shapes for any n, 0 too.
        """

    @abstractmethod
    def compute(self) -> float:
        """Return the value over all that was seen since the last `reset`; nan where that is nothing."""

    def check_shapes(self, prediction: Tensor, target: Tensor) -> None:
        """Raise `ArgumentError` where the shapes do not fit: by default they must be equal."""
        if prediction.shape != target.shape:
            raise ArgumentError(
                f"target has shape {tuple(target.shape)} and prediction {tuple(prediction.shape)}; "
                "they must be equal: nothing is broadcast"
            )

    def reset(self) -> None:
        """Forget all that was seen."""
        self._sums = {}

    def state(self) -> dict[str, Tensor]:
        """Return the sums, int64 or float64 on the CPU; nothing where nothing was seen."""
        return {name: value.clone() for name, value in self._sums.items()}

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Add the sums of another batch, or of another process.

        Raises:
            ArgumentError: They are of another number of classes.
        """
        for name, value in state.items():
            own, other = self._sums.get(name), _as_sum(value)
            if own is not None and own.shape != other.shape:
                raise ArgumentError(
                    f"metric {self.name}: {name} has shape {tuple(other.shape)} and had {tuple(own.shape)} "
                    "before; all predictions need the same number of classes"
                )
            self._sums[name] = other if own is None else own + other

    def ratio(self, above: str, below: str) -> float:
        """Return one sum over another; nan where the second is 0 or nothing was seen."""
        if not self._sums or not self._sums[below]:
            return float("nan")
        return float(self._sums[above].double() / self._sums[below].double())


def check_logits(prediction: Tensor, target: Tensor) -> None:
    """Raise `ArgumentError` unless predictions are logits of classes (..., V), or of yes or no (...)."""
    if prediction.shape != target.shape:
        check_classes_last(prediction, target)


def classes_of(prediction: Tensor, target: Tensor, *, threshold: float) -> tuple[Tensor, Tensor, int]:
    """Return the class that each prediction chooses, that of each target, and how many there are.

    Args:
        prediction: Logits (n, V), or (n,) of yes or no: yes above the threshold.
        target: Classes (n,) of any integer dtype, or 0 and 1 of any dtype.
        threshold: The logit above which an answer is yes.

    Raises:
        ArgumentError: A target is no class.
    """
    if prediction.dim() == 2:
        check_classes(target, prediction.shape[-1])
        return prediction.argmax(-1), target.long(), prediction.shape[-1]
    whole = target.long()
    if not (whole == target).all():
        raise ArgumentError("target holds numbers that are not whole, allowed is 0 or 1 for yes or no")
    check_classes(whole, 2)
    return (prediction > threshold).long(), whole, 2


def _as_sum(value: Tensor) -> Tensor:
    # Sums live on the CPU in 64 bits: some devices have no float64, and few numbers are waited for.
    value = value.detach().cpu()
    return value.double() if value.is_floating_point() else value.long()
