"""Leaves and gradients of a contest with a backward pass, the same for every contestant in PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def with_gradients(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return tensors that autograd follows, on the same memory."""
    return tuple(tensor.detach().requires_grad_() for tensor in tensors)


def gradients(y: Tensor, leaves: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    """Return the gradient of each leaf, given that of y."""
    return torch.autograd.grad(y, leaves, grad)
