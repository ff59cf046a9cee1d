"""The optimizer `lion`: the sign of an interpolated momentum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from helix_kernel.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch.optim.optimizer import ParamsT


class Lion(Optimizer):
    """Lion (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

    A step with gradient g, momentum m and weights w is::

        w <- w - lr (sign(beta1 m + (1 - beta1) g) + weight_decay w)
        m <- beta2 m + (1 - beta2) g

    Each weight moves by the learning rate exactly, so it should be 3 to 10 times smaller than AdamW's
    and `weight_decay` as many times larger (their section 5). Complex weights are treated as pairs.

    Args:
        params: Weights, or groups of weights with options of their own.
        lr: Learning rate, at least 0.
        betas: Share of the momentum in the update, and the share that a step keeps; 0 to below 1.
        weight_decay: Share of a weight that a step removes, times the learning rate; at least 0.
        foreach: Update many tensors in one kernel. None does so on CUDA only.

    Raises:
        ArgumentError: An option is out of range, or a gradient is sparse.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "foreach": foreach})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own, and check those."""
        super().add_param_group(param_group)
        _check_options(self.param_groups[-1])

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
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights = [self._collect(weight) for weight in group["params"] if weight.grad is not None]
            for alike in _by_device_and_dtype(weights):
                _update(alike, group)
        return loss

    def _collect(self, weight: Tensor) -> _Weight:
        gradient = weight.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise ArgumentError(
                "a gradient is sparse, and lion takes dense ones only; set sparse=False on the embedding"
            )
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight, memory_format=torch.preserve_format)
        tensors = (weight, gradient, state["momentum"])
        return _Weight(*(torch.view_as_real(t) if t.is_complex() else t for t in tensors))


class _Weight(NamedTuple):
    value: Tensor
    gradient: Tensor
    momentum: Tensor


def _update(weights: list[_Weight], group: dict[str, Any]) -> None:
    foreach = weights[0].value.is_cuda if group["foreach"] is None else group["foreach"]
    if foreach:
        _update_together(weights, group)
    else:
        for weight in weights:
            _update_one(weight, group)


def _update_one(weight: _Weight, group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    direction = weight.momentum.lerp(weight.gradient, 1 - beta1).sign_()
    weight.value.mul_(1 - group["lr"] * group["weight_decay"]).add_(direction, alpha=-group["lr"])
    weight.momentum.lerp_(weight.gradient, 1 - beta2)


def _update_together(weights: list[_Weight], group: dict[str, Any]) -> None:
    beta1, beta2 = group["betas"]
    values, gradients, momenta = (list(tensors) for tensors in zip(*weights, strict=True))
    directions = torch._foreach_lerp(momenta, gradients, 1 - beta1)  # noqa: SLF001 - torch has no public name
    torch._foreach_sign_(directions)
    torch._foreach_mul_(values, 1 - group["lr"] * group["weight_decay"])
    torch._foreach_add_(values, directions, alpha=-group["lr"])
    torch._foreach_lerp_(momenta, gradients, 1 - beta2)


def _by_device_and_dtype(weights: Iterable[_Weight]) -> Iterable[list[_Weight]]:
    alike: dict[tuple[torch.device, torch.dtype], list[_Weight]] = {}
    for weight in weights:
        alike.setdefault((weight.value.device, weight.value.dtype), []).append(weight)
    return alike.values()


def _check_options(group: dict[str, Any]) -> None:
    for name in ("lr", "weight_decay"):
        if not group[name] >= 0:
            raise ArgumentError(f"{name} is {group[name]!r}, allowed is >= 0")
    betas = group["betas"]
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise ArgumentError(f"betas is {betas!r}, allowed are two numbers >= 0 and < 1")
