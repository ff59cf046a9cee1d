"""How long a training step takes and what it keeps, by the size of its batch."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import attrs
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@attrs.frozen(kw_only=True)
class Measurement:
    """What a step of one size takes on one device.

    Args:
        device: The device.
        batch_size: Rows of the batch.
        seconds: Of a forward and a backward pass, the median of several.
        peak_bytes: What is allocated at the most. On a GPU its allocator counts that; elsewhere it is the sum
            of weights, gradients, and all that the forward pass keeps for the backward pass, each counted
            once, which is what grows with the batch.
    """

    device: str
    batch_size: int
    seconds: float
    peak_bytes: int

    @property
    def rows_per_second(self) -> float:
        """Rows that are trained on in a second."""
        return self.batch_size / self.seconds


def measure(
    model: nn.Module,
    step: Callable[[int], Tensor],
    *,
    sizes: Sequence[int],
    device: str = "cpu",
    repeats: int = 3,
) -> list[Measurement]:
    """Return what steps of growing sizes take, as far as the memory goes.

    Args:
        model: What is trained; its gradients are left as None.
        step: Runs a batch of so many rows through the model on the device, and returns the loss, a scalar.
        sizes: Rows of the batches; they are tried in ascending order until one does not fit.
        device: Where the model is, as in ``torch.device``.
        repeats: How often each is timed, after one run that is not.
    """
    found = []
    for size in sorted(sizes):
        try:
            found.append(_measured(model, step, size, torch.device(device), repeats))
        except torch.OutOfMemoryError:
            break
        finally:
            model.zero_grad(set_to_none=True)
    return found


def _measured(
    model: nn.Module, step: Callable[[int], Tensor], size: int, device: torch.device, repeats: int
) -> Measurement:
    peak = _peak(model, step, size, device)
    seconds = []
    for _ in range(repeats):
        model.zero_grad(set_to_none=True)
        _wait(device)
        begun = time.perf_counter()
        torch.autograd.backward(step(size))
        _wait(device)
        seconds.append(time.perf_counter() - begun)
    return Measurement(
        device=str(device), batch_size=size, seconds=statistics.median(seconds), peak_bytes=peak
    )


def _peak(model: nn.Module, step: Callable[[int], Tensor], size: int, device: torch.device) -> int:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        torch.autograd.backward(step(size))
        return torch.cuda.max_memory_allocated(device)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage: Any = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step(size)
    torch.autograd.backward(loss)
    for parameter in model.parameters():
        kept[parameter.untyped_storage().data_ptr()] = 2 * parameter.nbytes  # itself and its gradient
    return sum(kept.values())


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
