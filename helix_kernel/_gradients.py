"""The gradient of an op: its backward op, and the two ways by which autograd reaches it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from helix_kernel.ops import OpContract


class Gradient:
    """How an op is differentiated, read from its contract and its parsed schema.

    The backward op takes the gradients of the differentiable results, then the saved results,
    then the op's arguments; it gives one gradient for each differentiable argument.

    Args:
        contract: The op's contract.
        forward: The op, defined.

    Attributes:
        backward: The backward op; whoever defines it sets this.
    """

    backward: Callable[..., Any]

    def __init__(self, contract: OpContract, forward: torch._ops.OpOverload[..., Any]) -> None:
        self.contract = contract
        parsed = forward._schema  # noqa: SLF001 - torch shows a parsed schema nowhere else
        self.inputs = tuple(argument.name for argument in parsed.arguments)
        self.outputs = tuple(result.name for result in parsed.returns)
        self.tensors = tuple(
            i for i, argument in enumerate(parsed.arguments) if "Tensor" in str(argument.type)
        )
        self.leaves = tuple(i for i in self.tensors if self.inputs[i] not in contract.constants)
        self.wanted = tuple(i for i, name in enumerate(self.outputs) if name not in contract.saved)

    @property
    def schema(self) -> str:
        """Schema of the backward op."""
        arguments = [f"Tensor? grad_{self.outputs[i]}" for i in self.wanted]
        arguments += [f"Tensor saved_{name}" for name in self.contract.saved]
        arguments.append(self.contract.schema.split("->")[0].strip()[1:-1])
        results = (f"Tensor grad_{self.inputs[i]}" for i in self.leaves)
        return f"({', '.join(arguments)}) -> ({', '.join(results)})"

    def save(self, ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what the backward op needs: the saved results and every argument."""
        results = as_tuple(output)
        saved = [results[self.outputs.index(name)] for name in self.contract.saved]
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(*saved, *(inputs[i] for i in self.tensors))
        ctx.arguments = [None if i in self.tensors else value for i, value in enumerate(inputs)]

    def differentiate(self, ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Call the backward op; returns a gradient or None for each argument."""
        n_saved = len(self.contract.saved)
        kept = ctx.saved_tensors  # read once: activation checkpointing unpacks each tensor only once
        arguments = list(ctx.arguments)
        for i, tensor in zip(self.tensors, kept[n_saved:], strict=True):
            arguments[i] = tensor
        found = as_tuple(self.backward(*(grads[i] for i in self.wanted), *kept[:n_saved], *arguments))
        by_argument = dict(zip(self.leaves, found, strict=True))
        return tuple(
            by_argument[i] if needed and i in by_argument else None
            for i, needed in enumerate(ctx.needs_input_grad)
        )

    def reference(self, *args: Any) -> Any:
        """Compute the backward op by its reference, or by differentiating the op's."""
        if self.contract.backward is not None:
            return _bare(self.contract.backward(*args))
        found = self._differentiate_reference(args[: len(self.wanted)], args[len(self.outputs) :])
        return found if found is NotImplemented else _bare(found)

    def fake(self, *args: Any) -> Any:
        """Shape the backward op's results: as the arguments, contiguous."""
        arguments = args[len(self.outputs) :]
        return _bare(tuple(self._like(arguments, i) for i in self.leaves))

    def _differentiate_reference(self, grads: Sequence[torch.Tensor | None], arguments: Sequence[Any]) -> Any:
        import torch

        values = list(arguments)
        given = [i for i in self.leaves if values[i] is not None]
        for i in given:
            values[i] = values[i].detach().requires_grad_()
        with torch.enable_grad():
            outcome = self.contract.reference(*values)
        if outcome is NotImplemented:
            return NotImplemented
        results = as_tuple(outcome)
        pairs = [
            (results[i], grad)
            for i, grad in zip(self.wanted, grads, strict=True)
            if grad is not None and results[i].requires_grad
        ]
        found = torch.autograd.grad(
            [result for result, _ in pairs],
            [values[i] for i in given],
            [grad for _, grad in pairs],
            allow_unused=True,
            materialize_grads=True,
        )
        by_argument = dict(zip(given, found, strict=True))
        return tuple(
            by_argument[i].contiguous() if i in by_argument else self._like(arguments, i) for i in self.leaves
        )

    def _like(self, arguments: Sequence[Any], i: int) -> torch.Tensor:
        """Return an uninitialised gradient of argument `i`, empty where it is None."""
        import torch

        if arguments[i] is not None:
            return torch.empty_like(arguments[i], memory_format=torch.contiguous_format)
        first = next(arguments[j] for j in self.leaves if arguments[j] is not None)
        return first.new_empty(0)  # type: ignore[no-any-return]  # Any: an element of a call's arguments


def eager_functions(
    forward: Callable[..., Any], gradient: Gradient
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the op as one autograd function: the short way past PyTorch's Python autograd formula.

    The second function is for the transforms of ``torch.func``, which need a slower form of it.
    """
    import torch

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            with torch._C._AutoDispatchBelowAutograd():  # noqa: SLF001 - as PyTorch's own formula does
                output = forward(*args)
            gradient.save(ctx, args, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor | None) -> Any:
            with torch.no_grad():
                found = gradient.differentiate(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            return tuple(
                None if grad is None else Once.apply(grad, *grads, *ctx.saved_tensors)  # type: ignore[no-untyped-call]  # torch
                for grad in found
            )

    class Once(torch.autograd.Function):
        """Refuses to be differentiated: PyTorch would otherwise take the second derivative for zero."""

        @staticmethod
        def forward(grad: torch.Tensor, *_depends_on: torch.Tensor | None) -> torch.Tensor:
            return grad.view_as(grad)

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            pass

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise NotImplementedError(f"helix::{gradient.contract.name} has no second derivative")

    class Functional(Eager):
        @staticmethod
        def forward(*args: Any) -> Any:
            return forward(*args)

        setup_context = staticmethod(gradient.save)

    return Eager.apply, Functional.apply


def as_tuple(results: Any) -> tuple[Any, ...]:
    """Return an op's results as a tuple, also where it has one."""
    return tuple(results) if isinstance(results, tuple | list) else (results,)


def _bare(results: tuple[Any, ...]) -> Any:
    """Return results as an op does: the tensor itself where there is one."""
    return results[0] if len(results) == 1 else results
