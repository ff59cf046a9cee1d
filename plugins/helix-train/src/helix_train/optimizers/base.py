"""What our optimizers share: how weights are walked through, and how options are checked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable

Group = dict[str, Any]


class DenseOptimizer(Optimizer, ABC):
    """An optimizer of dense weights that updates lists of them, or one at a time.

    A subclass says in `check_options` what a group's options may be, and computes one step in `update`.
    The state keeps the dtype that it was saved in, where torch would cast it to the weight's. A group's
    option ``foreach`` says how many weights `update` is given: all that share device and dtype, or one,
    which needs less memory for what is in between. None is all on CUDA and one elsewhere.

    Attributes:
        name: What errors call it.
    """

    name: ClassVar[str]

    def add_param_group(self, param_group: Group) -> None:
        """Add weights with options of their own, and check those."""
        super().add_param_group(param_group)
        self.check_options(self.param_groups[-1])

    @abstractmethod
    def check_options(self, group: Group) -> None:
        """Raise `ArgumentError` where an option of a group is out of range."""

    @abstractmethod
    def update(self, weights: list[Tensor], group: Group) -> None:
        """Update weights of one device and dtype that all have a gradient."""

    def begin_step(self, group: Group) -> None:
        """Do what a step does once a group, before its weights."""

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all weights that have a gradient.

        Args:
            closure: Computes the loss and its gradients anew, if given.

        Returns:
            What the closure returned.

        Raises:
            ArgumentError: A gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.begin_step(group)
            weights = [weight for weight in group["params"] if weight.grad is not None]
            for weight in weights:
                self._refuse_sparse(weight)
            for alike in _by_device_and_dtype(weights):
                for together in _lists(alike, group["foreach"]):
                    self.update(together, group)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take on a state, in the dtypes that it was saved in."""
        super().load_state_dict(state_dict)
        groups = zip(self.param_groups, state_dict["param_groups"], strict=True)
        for weight, index in (
            pair for own, saved in groups for pair in zip(own["params"], saved["params"], strict=True)
        ):
            for slot, value in state_dict["state"].get(index, {}).items():
                self.state[weight][slot] = _copy_to(value, weight.device)

    def slot(self, weights: list[Tensor], name: str) -> list[Tensor]:
        """Return a buffer of each weight, zeros where it has none yet; complex ones as pairs."""
        for weight in weights:
            if name not in self.state[weight]:
                self.state[weight][name] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        return real([self.state[weight][name] for weight in weights])

    def count_step(self, weights: list[Tensor]) -> list[int]:
        """Return how many steps each weight has had, this one included."""
        for weight in weights:
            self.state[weight]["step"] = self.state[weight].get("step", 0) + 1
        return [self.state[weight]["step"] for weight in weights]

    def _refuse_sparse(self, weight: Tensor) -> None:
        if weight.grad is not None and weight.grad.is_sparse:
            raise ArgumentError(
                f"a gradient is sparse, and {self.name} takes dense ones only; set sparse=False on the "
                "embedding"
            )


def real(tensors: list[Tensor]) -> list[Tensor]:
    """Return complex tensors as pairs of real ones that share their memory, and real ones as they are."""
    return [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]


def gradients_of(weights: list[Tensor]) -> list[Tensor]:
    """Return the gradients of weights that have one; complex ones as pairs."""
    return real([weight.grad for weight in weights if weight.grad is not None])


def check_at_least_0(group: Group, *names: str) -> None:
    """Raise `ArgumentError` where one of these options is below 0, or NaN."""
    for name in names:
        if not group[name] >= 0:
            raise ArgumentError(f"{name} is {group[name]!r}, allowed is >= 0")


def check_shares(group: Group, name: str) -> None:
    """Raise `ArgumentError` unless an option is two numbers, each at least 0 and below 1."""
    shares = group[name]
    if len(shares) != 2 or not all(0 <= share < 1 for share in shares):
        raise ArgumentError(f"{name} is {shares!r}, allowed are two numbers >= 0 and < 1")


def refuse_shards(weight: Tensor, name: str) -> None:
    """Raise `ArgumentError` for a DTensor, of which an optimizer of whole matrices would see a part."""
    if hasattr(weight, "device_mesh"):
        raise ArgumentError(
            f"a weight of shape {tuple(weight.shape)} is a DTensor, spread over devices (FSDP2), and {name} "
            "needs whole matrices; train with DDP, or with an optimizer that goes element by element, such "
            "as adamw, lion or schedule-free-adamw"
        )


def _by_device_and_dtype(weights: list[Tensor]) -> list[list[Tensor]]:
    alike: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for weight in weights:
        alike.setdefault((weight.device, weight.dtype), []).append(weight)
    return list(alike.values())


def _lists(alike: list[Tensor], foreach: bool | None) -> list[list[Tensor]]:  # noqa: FBT001 - a group's option
    together = alike[0].is_cuda if foreach is None else foreach
    return [alike] if together else [[weight] for weight in alike]


def _copy_to(value: Any, device: torch.device) -> Any:
    """Return a value of a state with its tensors, in lists too, copied to a device."""
    if isinstance(value, Tensor):
        return value.to(device, copy=True)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_copy_to(item, device) for item in value]
    return value
