"""The way past PyTorch's dispatcher, which costs more than a decoding step's kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_kernel.alike import Findings

if TYPE_CHECKING:
    from collections.abc import Callable

CPU_KERNELS: dict[str, Callable[..., Any]] = {}
"""What the selection of backends in force has registered for the CPU, by name of op."""


class Shortcut:
    """Calls an op's CPU kernel itself, where the dispatcher would do just that; else the op.

    Where a mode, the profiler, a trace or autocast listens, or a tensor is anything but a plain one on the
    CPU (another device, a subclass, fake, conjugated, a batch of vmap), the dispatcher decides.

    Args:
        name: The op's name.
        overload: The op.
    """

    def __init__(self, name: str, overload: Callable[..., Any]) -> None:
        import torch
        from torch.autograd import forward_ad

        self._name = name
        self._overload = overload
        with torch.inference_mode():
            without_gradient = torch.empty(0)
        self._plain = frozenset(map(_keys, (torch.empty(0), without_gradient)))
        self._grad_modes: Findings[bool] = Findings()
        self._grad_enabled = torch.is_grad_enabled
        # Of those that listen, the ones of which tensors' dispatch keys tell nothing.
        self._n_function_modes = torch._C._len_torch_function_stack  # noqa: SLF001 - it has no public name
        self._is_profiling = torch._C._autograd._profiler_enabled  # noqa: SLF001 - as above
        self._forward_ad = forward_ad

    def __call__(self, *args: Any) -> Any:
        """Compute the op."""
        kernel = self._kernel_for(args)
        return self._overload(*args) if kernel is None else kernel(*args)

    def without_gradient(self, args: tuple[Any, ...]) -> Any:
        """Compute the op below autograd, and remember the call if a kernel did it."""
        import torch

        kernel = self._kernel_for(args)
        with torch._C._AutoDispatchBelowAutograd():  # noqa: SLF001 - as PyTorch's own formula does
            results = self._overload(*args) if kernel is None else kernel(*args)
        if kernel is not None:
            self._grad_modes.keep(args, self._grad_enabled())
        return results

    def repeated(self, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        """Return the kernel, where it did a call that this one is like; else None.

        What the arguments' tests found for that call, and that it needs no gradient, holds for this one too.
        """
        found = self._grad_modes.find(args)
        if (
            found is None
            or found[0] is not self._grad_enabled()
            or self._n_function_modes()
            or self._is_profiling()
            or self._forward_ad._current_level >= 0  # noqa: SLF001 - it has no public name
        ):
            return None
        return CPU_KERNELS.get(self._name)

    def _kernel_for(self, args: tuple[Any, ...]) -> Callable[..., Any] | None:
        kernel = CPU_KERNELS.get(self._name)
        return None if kernel is None or _somebody_listens() or not self._are_plain(args) else kernel

    def _are_plain(self, args: tuple[Any, ...]) -> bool:
        import torch

        return all(_keys(arg) in self._plain for arg in args if isinstance(arg, torch.Tensor))


def _keys(tensor: Any) -> int:
    """Return the keys by which the dispatcher knows a tensor, as one number."""
    import torch

    return torch._C._dispatch_keys(tensor).raw_repr()  # noqa: SLF001 - it has no public name


def _somebody_listens() -> bool:
    import torch

    return bool(
        torch._C._len_torch_dispatch_stack()  # noqa: SLF001 - it has no public name
        or torch._C._len_torch_function_stack()  # noqa: SLF001 - as above
        or torch._C._autograd._profiler_enabled()  # noqa: SLF001 - as above
        or torch._C._get_tracing_state() is not None  # noqa: SLF001 - as above
        or torch.is_autocast_enabled("cpu")
    )
