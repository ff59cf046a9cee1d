"""Ops that autograd can follow, made of an implementation and that of its gradient.

For callers of kernels that hold no registered op. What a kernel can do stays what its contract says; this
adds only the bookkeeping of one `torch.autograd.Function`, the same for every op.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import forward_ad

from helix_kernel.errors import HelixError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class SecondOrderError(HelixError, RuntimeError):
    """A gradient that a kernel computed was to be differentiated again."""


class Differentiable:
    """An op with a gradient, called as its implementation is.

    Args:
        name: The op's name.
        forward: Computes the op from positional arguments, or returns ``NotImplemented``.
        backward: Computes its gradient from the gradients of the results that have one, None where a
            result went unused, then the saved results, then the arguments. It returns a gradient for each
            of `leaves`.
        leaves: Positions of the arguments that have a gradient.
        n_saved: How many results, the last ones, exist only to be handed to `backward`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        backward: Callable[..., Any],
        *,
        leaves: Sequence[int],
        n_saved: int = 0,
    ) -> None:
        self.name = name
        self.forward = forward
        self.backward = backward
        self.leaves = tuple(leaves)
        self.n_saved = n_saved
        self._function = _function(self)

    def __repr__(self) -> str:
        return f"Differentiable({self.name!r})"

    def __call__(self, *args: Any) -> Any:
        """Run the op; returns its results but the saved ones, or ``NotImplemented``.

        Raises:
            SecondOrderError: Later, where a gradient of a gradient is asked for.
            NotImplementedError: An argument has a tangent: there are no derivatives in forward mode.
        """
        if self._is_followed(args):
            try:
                return self._function.apply(*args)
            except _DeclinedError:
                return NotImplemented
        results = self.forward(*args)
        return results[: -self.n_saved] if self.n_saved and results is not NotImplemented else results

    def _is_followed(self, args: tuple[Any, ...]) -> bool:
        """Whether autograd must hear of a call: of a tangent too, which it then refuses to take."""
        if forward_ad._current_level >= 0:  # noqa: SLF001 - it has no public name
            return True
        return torch.is_grad_enabled() and any(
            args[i] is not None and args[i].requires_grad for i in self.leaves
        )


class _DeclinedError(Exception):
    """The implementation does not serve a call; an autograd function cannot return that."""


def _function(op: Differentiable) -> Any:
    """Make the autograd function of an op: torch wants a class for each."""

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            results = op.forward(*args)
            if results is NotImplemented:
                raise _DeclinedError
            _keep(ctx, results[-op.n_saved :] if op.n_saved else (), args)
            return results[: -op.n_saved] if op.n_saved else results

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> Any:
            return _differentiate(op, ctx, grads)

    Function.__name__ = Function.__qualname__ = f"helix_cpu.{op.name}"
    return Function


def _keep(ctx: Any, saved: tuple[Tensor, ...], args: tuple[Any, ...]) -> None:
    tensors = tuple(i for i, arg in enumerate(args) if isinstance(arg, torch.Tensor))
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*saved, *(args[i] for i in tensors))
    ctx.positions = tensors
    ctx.others = [None if i in tensors else arg for i, arg in enumerate(args)]


def _differentiate(
    op: Differentiable, ctx: Any, grads: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    kept = ctx.saved_tensors  # read once: activation checkpointing unpacks each tensor only once
    args = list(ctx.others)
    for i, tensor in zip(ctx.positions, kept[op.n_saved :], strict=True):
        args[i] = tensor
    found = op.backward(*grads, *kept[: op.n_saved], *args)
    if found is NotImplemented:
        raise HelixError(f"op {op.name!r} was served forward but has no gradient for these arguments")
    by_argument = dict(zip(op.leaves, found, strict=True))
    needed = [i for i in op.leaves if ctx.needs_input_grad[i]]
    if torch.is_grad_enabled():  # only where the caller asked for a graph of the gradient
        sources = [tensor for tensor in (*grads, *kept) if tensor is not None]
        marked = _Once.apply(op.name, len(needed), *(by_argument[i] for i in needed), *sources)  # type: ignore[no-untyped-call]  # torch
        by_argument |= dict(zip(needed, marked, strict=True))
    return tuple(by_argument[i] if i in needed else None for i in range(len(args)))


class _Once(torch.autograd.Function):
    """Gradients on their way out: a graph leads through here, and ends with an error."""

    @staticmethod
    def forward(ctx: Any, name: str, n_gradients: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(tensor.view_as(tensor) for tensor in tensors[:n_gradients])

    @staticmethod
    def backward(ctx: Any, *_grads: Tensor) -> Any:
        raise SecondOrderError(
            f"the gradient of op {ctx.name!r} cannot be differentiated again: helix-cpu's kernels compute"
            " first derivatives. For second ones run PyTorch's own ops: undo patch_transformers() before"
        )
