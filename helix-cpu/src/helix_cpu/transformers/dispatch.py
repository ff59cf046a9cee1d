"""Which calls Helix serves: plain tensors on the CPU, followed by nothing; the others go where they went."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

_PLAIN = (torch.Tensor, torch.nn.Parameter)


class InForce(Protocol):
    """Whether a patch is in force, and what it served."""

    calls: Counter[str]

    @property
    def active(self) -> bool:
        """Whether it is in force."""
        ...


def dispatch(
    name: str, before: Callable[..., Any], ours: Callable[..., Any], in_force: InForce, *, packs: bool
) -> Callable[..., Any]:
    """Return a function that asks `ours` first, and `before` where that does not serve the call.

    Args:
        name: The function's name in transformers.
        before: What the name was bound to.
        ours: Serves the call, or returns ``NotImplemented`` having changed nothing. Keywords that it does not
            know are left out, as transformers does for the packages it calls.
        in_force: The patch.
        packs: Whether `ours` may be given ``seq_idx``.
    """
    known = frozenset(inspect.signature(ours).parameters)

    @functools.wraps(before, updated=())
    def call(*args: Any, **kwargs: Any) -> Any:
        if in_force.active and (packs or kwargs.get("seq_idx") is None) and _eager(args, kwargs):
            results = ours(*args, **{key: value for key, value in kwargs.items() if key in known})
            if results is not NotImplemented:
                in_force.calls[name] += 1
                return results
        return before(*args, **kwargs)

    return call


def _eager(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether all tensors, the first argument among them, are plain ones on the CPU, and nothing follows."""
    if not (args and isinstance(args[0], torch.Tensor)) or _followed():
        return False
    for value in (*args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and not (type(value) in _PLAIN and value.is_cpu):
            return False
    return True


def _followed() -> bool:
    """Whether something wants to see the PyTorch calls within: a kernel of ours would hide them from it."""
    return (
        torch.compiler.is_compiling()
        or torch._C._is_tracing()  # noqa: SLF001 - as below, it has no public name
        or torch._C._are_functorch_transforms_active()  # noqa: SLF001
        or torch._C._len_torch_dispatch_stack() > 0  # noqa: SLF001 - fake tensors, make_fx, FLOP counters
        or forward_ad._current_level >= 0  # noqa: SLF001
    )
