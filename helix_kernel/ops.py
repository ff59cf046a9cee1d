"""Op contracts: PyTorch operators in the namespace `helix`, each standing beside its oracle.

Whoever needs an op describes it by an `OpContract` and calls `define` once, in the module that
holds the contract. That registers ``torch.ops.helix.<name>`` and ``torch.ops.helix.<name>_backward``
with their references, fake kernels, gradient and FLOP formulas; backends (`helix_kernel.backends`)
replace the references for a type of device without the caller knowing.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import attrs

from helix_kernel.errors import ArgumentError, UnknownNameError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

NAMESPACE = "helix"
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


@attrs.frozen
class Sample:
    """One call of an op, as small as the corner that it covers allows.

    Args:
        name: What the sample covers, kebab-case.
        args: Every argument of the op, in order; floating tensors are float64 on the CPU,
            complex ones complex128.
    """

    name: str
    args: tuple[Any, ...]


@attrs.frozen(kw_only=True)
class OpContract:
    """What an op is, apart from any implementation that is fast.

    Args:
        name: Name in ``torch.ops.helix``, a Python identifier.
        schema: Arguments and results as PyTorch writes them, with a name for each result and no
            default values, such as ``"(Tensor x, Tensor? bias) -> (Tensor y)"``. Results are
            plain tensors, contiguous, and share no memory with the arguments.
        reference: The formula, run on tensors of any floating dtype on any device. It mutates
            nothing, and is differentiated to give the reference of the gradient.
        fake: The same signature on fake tensors: gives results of the right shape and dtype.
        samples: Calls that cover the op's corners.
        flops: Floating-point operations of a call, from its arguments with each tensor replaced
            by its shape.
        backward_flops: The same for the gradient; twice the forward's where not given.
        backward: Reference of ``<name>_backward``, called with the gradients of the results that
            have one (None where a result went unused), then the saved results, then the op's
            arguments. It returns a contiguous gradient, of the argument's shape and dtype, for
            each differentiable argument, and an empty tensor for one that is None. Where it is
            not given, the reference is differentiated.
        saved: Results that exist only to be handed to the backward op; they have no gradient.
        constants: Tensor arguments that have no gradient, such as indices.
        check: Called with the op's arguments; raises `ArgumentError` where they do not fit one another. It
            looks at the tensors' shapes and dtypes and at other arguments' values: a call that is like one
            before in those is not checked again.

    Raises:
        ArgumentError: The schema has default values or no results.
    """

    name: str
    schema: str = attrs.field()
    reference: Callable[..., Any]
    fake: Callable[..., Any]
    samples: Callable[[], Iterable[Sample]]
    flops: Callable[..., int]
    backward_flops: Callable[..., int] | None = None
    backward: Callable[..., tuple[torch.Tensor, ...]] | None = None
    saved: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()
    check: Callable[..., None] | None = None

    @schema.validator
    def _check_schema(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if value.count("->") != 1 or "=" in value:
            raise ArgumentError(
                f"op {self.name!r}: schema={value!r} must read '(Type name, ...) -> (Tensor name, ...)',"
                " without default values (PyTorch leaves those out when it calls a kernel)"
            )

    @property
    def backward_name(self) -> str:
        """Name of the op that computes the gradient."""
        return f"{self.name}_backward"


class Op:
    """A defined op: call it with positional arguments, all of them.

    In eager mode a call takes a short way: one autograd function, or none where nothing needs a
    gradient, and on the CPU no dispatcher where nothing listens to it. While ``torch.compile`` or
    ``torch.export`` traces, it is the registered op.

    Args:
        contract: What the op is.
    """

    def __init__(self, contract: OpContract) -> None:
        import torch

        from helix_kernel._gradients import Gradient, eager_functions
        from helix_kernel._shortcut import Shortcut

        self.contract = contract
        self._library = torch.library.Library(NAMESPACE, "FRAGMENT")  # type: ignore[no-untyped-call]  # torch
        self.forward = _register(
            self._library, contract.name, contract.schema, contract.reference, contract.fake
        )
        gradient = Gradient(contract, self.forward)
        self.backward = _register(
            self._library, contract.backward_name, gradient.schema, gradient.reference, gradient.fake
        )
        gradient.backward = Shortcut(contract.backward_name, self.backward)
        self._below_autograd = Shortcut(contract.name, self.forward)
        self.references = {contract.name: contract.reference, contract.backward_name: gradient.reference}
        torch.library.register_autograd(
            f"{NAMESPACE}::{contract.name}",
            gradient.differentiate,
            setup_context=gradient.save,
            lib=self._library,
        )
        self._check = contract.check or (lambda *_: None)
        self._eager, self._functional = eager_functions(self._below_autograd, gradient)
        _register_flops(contract, n_extra=len(gradient.outputs))

    def gradient_of(self, implementation: Callable[..., Any]) -> Callable[..., Any]:
        """Return an implementation of the backward op that differentiates one of the op by autograd.

        It runs `implementation` again on the op's arguments, so that nothing but them need be kept, and
        returns ``NotImplemented`` where that does.

        Args:
            implementation: Computes the op, as its contract says, from differentiable PyTorch calls.
        """
        from helix_kernel._gradients import Gradient

        contract = attrs.evolve(self.contract, reference=implementation, backward=None)
        return Gradient(contract, self.forward).reference

    def __repr__(self) -> str:
        return f"Op({NAMESPACE}::{self.contract.name}{self.contract.schema})"

    def __call__(self, *args: Any) -> Any:
        """Run the op; returns a tensor, or a tuple where the schema has several results."""
        import torch

        if torch.compiler.is_compiling():
            self._check(*args)
            return self.forward(*args)
        kernel = self._below_autograd.repeated(args)
        if kernel is not None:
            return kernel(*args)
        self._check(*args)
        if torch._C._are_functorch_transforms_active():  # noqa: SLF001 - it has no public name
            return self._functional(*args)
        if _differentiates(args):
            return self._eager(*args)
        return self._below_autograd.without_gradient(args)


def _differentiates(args: tuple[Any, ...]) -> bool:
    """Whether autograd must hear of a call: of a tangent too, which it then refuses to take."""
    import torch
    from torch.autograd import forward_ad

    if forward_ad._current_level >= 0:  # noqa: SLF001 - it has no public name
        return True
    return torch.is_grad_enabled() and any(
        isinstance(arg, torch.Tensor) and arg.requires_grad for arg in args
    )


def define(contract: OpContract) -> Op:
    """Register an op with PyTorch, for the life of the process.

    Raises:
        ArgumentError: An op of that name is defined already.
    """
    if contract.name in _DEFINED:
        raise ArgumentError(f"op {contract.name!r} is defined already: {_DEFINED[contract.name]!r}")
    op = Op(contract)
    _DEFINED[contract.name] = op
    return op


def defined() -> Mapping[str, Op]:
    """Return the ops defined so far, by name."""
    return MappingProxyType(_DEFINED)


def reference(name: str) -> Callable[..., Any]:
    """Return the reference of a defined op, or of its gradient, by the name of either.

    Raises:
        UnknownNameError: No op of that name is defined.
    """
    for op in _DEFINED.values():
        if name in op.references:
            return op.references[name]
    known = [known for op in _DEFINED.values() for known in op.references]
    raise UnknownNameError(f"no op is named {name!r}.{did_you_mean(name, known)}")


# PyTorch's table of operators lasts as long as the process; this is the part of it that is ours.
_DEFINED: dict[str, Op] = {}


def _register(
    library: torch.library.Library,
    name: str,
    schema: str,
    kernel: Callable[..., Any],
    fake: Callable[..., Any],
) -> torch._ops.OpOverload[..., Any]:
    import torch

    library.define(name + schema)  # type: ignore[no-untyped-call]  # torch
    overload = getattr(getattr(torch.ops, NAMESPACE), name).default
    library.impl(name, kernel, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]  # torch
    torch.library.register_fake(f"{NAMESPACE}::{name}", fake, lib=library)
    for device_type, key in _AUTOCAST_KEYS.items():
        library.impl(name, _without_autocast(overload, device_type), key)  # type: ignore[no-untyped-call]  # torch
    return overload  # type: ignore[no-any-return]  # torch.ops is untyped


def _without_autocast(overload: Callable[..., Any], device_type: str) -> Callable[..., Any]:
    """Keep autocast out of kernels: an op says itself in which precision it computes."""

    def kernel(*args: Any) -> Any:
        import torch

        with torch.autocast(device_type, enabled=False):
            return overload(*args)

    return kernel


def _register_flops(contract: OpContract, n_extra: int) -> None:
    import torch
    from torch.utils.flop_counter import register_flop_formula

    backward_flops = contract.backward_flops or (lambda *shapes: 2 * contract.flops(*shapes))
    packets = getattr(torch.ops, NAMESPACE)

    def forward(*shapes: Any, out_shape: Any) -> int:  # noqa: ARG001 - the formula needs inputs only
        return contract.flops(*shapes)

    def backward(*shapes: Any, out_shape: Any) -> int:  # noqa: ARG001 - as above
        return backward_flops(*shapes[n_extra:])

    register_flop_formula(getattr(packets, contract.name))(forward)
    register_flop_formula(getattr(packets, contract.backward_name))(backward)
