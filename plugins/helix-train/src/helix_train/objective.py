"""What a step minimises: the loss of a batch's predictions, and what the model itself adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from torch import Tensor


@attrs.frozen(kw_only=True)
class Losses:
    """The parts of what is minimised, which is their sum.

    Args:
        task: The loss of the predictions, a scalar.
        auxiliary: What the model adds, such as a router's balance loss, a scalar; None for nothing.
    """

    task: Tensor
    auxiliary: Tensor | None = None

    @property
    def total(self) -> Tensor:
        """Their sum, a scalar."""
        return self.task if self.auxiliary is None else self.task + self.auxiliary

    def scaled(self, factor: float) -> Losses:
        """Return each part times a factor."""
        if factor == 1.0:
            return self
        return self._map(lambda part: part * factor)

    def detach(self) -> Losses:
        """Return the values without the graph that made them."""
        return self._map(torch.Tensor.detach)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Losses:
        return Losses(
            task=change(self.task), auxiliary=None if self.auxiliary is None else change(self.auxiliary)
        )


def add_up(parts: Iterable[Losses]) -> Losses:
    """Return the sums of the parts; at least one is needed."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    auxiliary = [part.auxiliary for part in parts if part.auxiliary is not None]
    return Losses(
        task=torch.stack([part.task for part in parts]).sum(),
        auxiliary=torch.stack(auxiliary).sum() if auxiliary else None,
    )


@attrs.frozen(kw_only=True)
class Examples:
    """A batch on the device that it is trained on.

    Args:
        inputs: What the model is given: (B, L), or several by name, each with a method ``to``.
        targets: What the loss compares its output with: (B, L), or (B,) for classes of whole rows; floating
            where no classes are meant.
        mask: Which targets count, bool, in the targets' shape; None for all.
        input_mask: Which inputs are no padding, bool (B, L), for the model to know; None for all.
    """

    inputs: Any
    targets: Tensor
    mask: Tensor | None = None
    input_mask: Tensor | None = None

    @classmethod
    def of(cls, batch: Any, device: torch.device) -> Examples:
        """Take a dataset's batch to a device; its ``mask`` and ``input_mask`` may be left out or None."""

        def moved(name: str) -> Tensor | None:
            tensor: Tensor | None = getattr(batch, name, None)
            return None if tensor is None else tensor.to(device)

        return cls(
            inputs=_on(device, batch.inputs),
            targets=batch.targets.to(device),
            mask=moved("mask"),
            input_mask=moved("input_mask"),
        )


def _on(device: torch.device, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return {name: part.to(device) for name, part in inputs.items()}
    return inputs.to(device)


def predict(model: Any, examples: Examples) -> Tensor:
    """Return what a model gives for whole sequences; where some are padded, it is told by ``mask=``."""
    padded = {} if examples.input_mask is None else {"mask": examples.input_mask}
    prediction: Tensor = model(examples.inputs, **padded)
    return prediction


@attrs.frozen(kw_only=True)
class Objective:
    """A model and the loss that it is trained by.

    Args:
        model: From inputs (B, L), with ``mask=`` where rows are padded, to a prediction. Where it has a
            method ``auxiliary_loss()``, that gives what its last run adds to the loss, a scalar, or None.
        loss: ``loss(prediction, target)``, with ``mask=`` where a batch has one; gives a scalar.
        precision: Makes the context that the model runs in, such as autocast.
        forward: What is called in the model's place for whole sequences, such as the model compiled; the
            model itself if left out. Where logits are made in parts, it gives the features; see
            `helix_train.logits`.
    """

    model: Any
    loss: Any
    precision: Callable[[], AbstractContextManager[object]] = nullcontext
    forward: Any = None

    def backward(self, examples: Examples, *, weight: float = 1.0) -> Losses:
        """Add the gradients of the loss of whole sequences to those of the parameters.

        Args:
            examples: What to learn from.
            weight: Factor of the loss.

        Returns:
            The weighted losses.
        """
        with self.precision():
            prediction = predict(self.model if self.forward is None else self.forward, examples)
        losses = self.measure(prediction, examples).scaled(weight)
        losses.total.backward()  # type: ignore[no-untyped-call]  # torch's own stub lacks its types
        return losses.detach()

    def measure(self, prediction: Tensor, examples: Examples) -> Losses:
        """Return the losses of a prediction that the model has just made."""
        task = self.measure_task(prediction, examples.targets, examples.mask)
        return Losses(task=task, auxiliary=self.auxiliary())

    def measure_task(self, prediction: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
        """Return the loss of a prediction, a scalar, summed in float32 at least."""
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        masked = {} if mask is None else {"mask": mask}
        loss: Tensor = self.loss(prediction, targets, **masked)
        return loss

    def auxiliary(self) -> Tensor | None:
        """Return what the model's last run adds to the loss, a scalar, or None."""
        own = getattr(self.model, "auxiliary_loss", None)
        return None if own is None else own()
