"""Losses that layers add to a model's own, such as that which keeps a router balanced.

A layer that has one has a method ``auxiliary_loss() -> Tensor | None``: the weighted loss of its last
forward in training, a scalar with its graph, or None. A model sums those of its layers with `collect`, and
a trainer adds what the model's own method gives to the loss that it minimises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn


class Auxiliary(Protocol):
    """What a layer with a loss of its own offers."""

    def auxiliary_loss(self) -> Tensor | None:
        """Return the weighted loss of the last forward in training; None where there was none."""
        ...


def collect(module: nn.Module) -> Tensor | None:
    """Return the sum of the losses of the layers inside a module, None where no layer has one.

    A layer with the method speaks for all the layers inside it.
    """
    losses = [loss for layer in _layers(module) if (loss := layer.auxiliary_loss()) is not None]
    return torch.stack(losses).sum() if losses else None


def _layers(module: nn.Module) -> Iterator[Auxiliary]:
    # Every module is asked once a step. So its class is, as an instance would look through its parameters
    # first; and where nothing lies inside, as in most, children() is spared.
    for child in module.children():
        if hasattr(type(child), "auxiliary_loss"):
            yield cast("Auxiliary", child)
        elif vars(child)["_modules"]:
            yield from _layers(child)
