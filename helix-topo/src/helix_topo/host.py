"""Modules whose tables stay where compiled loops and float64 times need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class HostModule(nn.Module):
    """A module that stays in the host's memory and of its dtypes, wherever the model around it is moved."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: ARG002, FBT001, FBT002 - torch's own signature
        return self
