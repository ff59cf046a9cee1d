"""The backend `cuda-triton`: which GPUs and which Triton this machine has, and their memory.

`ops` is empty in this release, so that every op is served by another backend or its reference.
"""

from __future__ import annotations

from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_kernel.backends import Memory, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class CUDABackend:
    """NVIDIA GPUs, by Triton."""

    device_type = "cuda"
    priority = 20
    ops: Mapping[str, Callable[..., Any]] = MappingProxyType({})

    def probe(self) -> Probe:
        """Look for a CUDA build of PyTorch, a GPU, and Triton, and say what is missing first."""
        import torch

        if torch.version.cuda is None:
            return Probe(available=False, reason=f"PyTorch {torch.__version__} is built without CUDA")
        if not torch.cuda.is_available():
            return Probe(available=False, reason="PyTorch finds no CUDA device or driver")
        devices = tuple(_describe(index) for index in range(torch.cuda.device_count()))
        if find_spec("triton") is None:
            return Probe(
                available=False, reason="Triton is not installed: pip install triton", devices=devices
            )
        return Probe(available=True, reason=f"CUDA {torch.version.cuda}, Triton found", devices=devices)

    def memory(self, index: int = 0) -> Memory | None:
        """Return the memory of GPU `index`, or None where there is none."""
        import torch

        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            return None
        free, total = torch.cuda.mem_get_info(index)
        return Memory(total=total, available=free)


def _describe(index: int) -> str:
    import torch

    major, minor = torch.cuda.get_device_capability(index)
    return f"{torch.cuda.get_device_name(index)} (compute capability {major}.{minor})"
