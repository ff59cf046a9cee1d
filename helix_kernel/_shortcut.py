"""The way past PyTorch's dispatcher, which costs more than a decoding step's kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

CPU_KERNELS: dict[str, Callable[..., Any]] = {}
"""What the selection of backends in force has registered for the CPU, by name of op."""


class Shortcut:
    """Calls an op's CPU kernel itself, where the dispatcher would do just that; else the op.

    Where a mode, the profiler or autocast listens, or a tensor is anything but a plain one on the CPU
    (another device, a subclass, fake, conjugated, a batch of vmap), the dispatcher decides.

    Args:
        name: The op's name.
        overload: The op.
    """

    def __init__(self, name: str, overload: Callable[..., Any]) -> None:
        import torch

        self._name = name
        self._overload = overload
        with torch.inference_mode():
            without_gradient = torch.empty(0)
        self._plain = frozenset(map(_keys, (torch.empty(0), without_gradient)))

    def __call__(self, *args: Any) -> Any:
        """Compute the op."""
        kernel = CPU_KERNELS.get(self._name)
        if kernel is None or _somebody_listens() or not self._are_plain(args):
            return self._overload(*args)
        return kernel(*args)

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
        or torch.is_autocast_enabled("cpu")
    )
