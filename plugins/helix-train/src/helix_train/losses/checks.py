"""Checks of predictions, targets and masks that losses and metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError


def broadcast_mask(mask: Tensor, target: Tensor) -> Tensor:
    """Return a mask in the target's shape.

    Raises:
        ArgumentError: It is not of bools, or does not broadcast.
    """
    if mask.dtype != torch.bool:
        raise ArgumentError(f"mask has dtype {mask.dtype}, allowed is torch.bool (True keeps an element)")
    try:
        return mask.expand(target.shape)
    except RuntimeError as error:
        raise ArgumentError(
            f"mask has shape {tuple(mask.shape)}, which does not broadcast to the target's "
            f"{tuple(target.shape)}"
        ) from error


def check_classes_last(prediction: Tensor, target: Tensor) -> None:
    """Raise `ArgumentError` unless the prediction is the target's shape and one axis of classes."""
    if prediction.dim() == 0 or prediction.shape[:-1] != target.shape or prediction.shape[-1] < 2:
        raise ArgumentError(
            f"prediction has shape {tuple(prediction.shape)} and target {tuple(target.shape)}; prediction "
            "must be the target's shape and one more axis at the end, of 2 classes or more: (..., V), (...)"
        )


def check_classes(target: Tensor, n_classes: int) -> None:
    """Raise `ArgumentError` unless targets are integers and, where one may look, in range."""
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise ArgumentError(
            f"target has dtype {target.dtype}, allowed is an integer one: the number of a class"
        )
    if may_look_at(target):
        least, most = (int(bound) for bound in target.aminmax())
        if least < 0 or most >= n_classes:
            raise ArgumentError(
                f"target holds {least if least < 0 else most}, allowed is 0 to {n_classes - 1} for "
                f"{n_classes} classes; hide padding with mask"
            )


def may_look_at(tensor: Tensor) -> bool:
    """Whether values can be checked without waiting for a device or breaking a compiled graph."""
    return tensor.device.type == "cpu" and tensor.numel() > 0 and not torch.compiler.is_compiling()
