"""Whether a call is like one before: what was found out about that one then holds for it too."""

from __future__ import annotations

import functools
from copy import deepcopy
from itertools import compress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

Finding = TypeVar("Finding")

_MOST = 16
"""Findings that are kept: a model calls an op on few shapes. Of one that does not, all are then forgotten."""


class Findings(Generic[Finding]):
    """What was found out about calls of a function, for calls that are like them.

    They are told apart by the shape of their first argument: of those that share it, the last one counts.
    """

    def __init__(self) -> None:
        self._kept: dict[Any, tuple[Alike, Finding]] = {}

    def find(self, args: Sequence[Any]) -> tuple[Finding, list[torch.Tensor]] | None:
        """Return what was found for a call like this one, and this one's tensors; else None."""
        kept = self._kept.get(getattr(args[0], "shape", None))
        if kept is None:
            return None
        tensors = kept[0].tensors(args)
        return None if tensors is None else (kept[1], tensors)

    def keep(self, args: Sequence[Any], finding: Finding) -> None:
        """Keep what was found for a call, where PyTorch can tell which calls are like it."""
        if _tensor_guards() is None:
            return
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[getattr(args[0], "shape", None)] = Alike(args), finding


class Alike:
    """What a call's arguments were like.

    That is class, dtype, device, shape, strides, dispatch keys and ``requires_grad`` of each tensor, and the
    values of all else. The dispatch keys are those that count where it is asked: they change as autocast, a
    mode or a transform comes into force. What a tensor holds and where it lies does not count. Two arguments
    that are one tensor are never alike to others.

    Args:
        args: The call's arguments, one tensor among them at the least.
    """

    def __init__(self, args: Sequence[Any]) -> None:
        import torch

        self._kinds = [*map(type, args)]
        self._tensors = [isinstance(arg, torch.Tensor) for arg in args]
        self._others = [not is_tensor for is_tensor in self._tensors]
        self._values = deepcopy([*compress(args, self._others)])
        guards: Any = _tensor_guards()
        tensors = compress(args, self._tensors)
        self._are_like = guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check

    def tensors(self, args: Sequence[Any]) -> list[torch.Tensor] | None:
        """Return the tensors among a call's arguments, where it is like this one; else None."""
        if [*map(type, args)] != self._kinds or [*compress(args, self._others)] != self._values:
            return None
        tensors = [*compress(args, self._tensors)]
        return tensors if self._are_like(*tensors) else None


@functools.cache
def _tensor_guards() -> Any:
    """Return what torch.compile asks before it calls its code; None where a PyTorch has no such thing.

    It is a private part, and by far the fastest way to ask: without it nothing is remembered.
    """
    try:
        from torch._C._dynamo.guards import TensorGuards
    except ImportError:
        return None
    return TensorGuards
