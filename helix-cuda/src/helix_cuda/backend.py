"""The backend `cuda-triton`: its kernels, which GPUs and which Triton this machine has, and their memory."""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from helix_cuda.interpreter import interprets
from helix_cuda.verdicts import describe
from helix_kernel.backends import Memory, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from helix_cuda.serving import Servers

_NO_TRITON = "Triton is not installed: python -m pip install triton"


class CUDABackend:
    """NVIDIA GPUs, by Triton; or the CPU, slowly, where ``TRITON_INTERPRET=1`` asks for its interpreter."""

    @property
    def device_type(self) -> str:
        """The devices served."""
        return "cpu" if interprets() else "cuda"

    @property
    def priority(self) -> int:
        """Above all others; an interpreter serves only where it is named."""
        return -10 if interprets() else 20

    @property
    def ops(self) -> Mapping[str, Callable[..., Any]]:
        """The kernels, where there is a Triton to make them, but for those withheld."""
        return MappingProxyType({}) if self._servers is None else self._servers.ops

    @property
    def withheld(self) -> Mapping[str, str]:
        """Why ops are not offered: this machine's Triton makes them wrong."""
        return MappingProxyType({}) if self._servers is None else self._servers.withheld

    @cached_property
    def _servers(self) -> Servers | None:
        if find_spec("triton") is None:
            return None
        from helix_cuda.serving import Servers

        return Servers()

    def probe(self) -> Probe:
        """Look for a CUDA build of PyTorch, a GPU, and Triton, and say what is missing first."""
        import torch

        if interprets():
            return _probe_interpreter()
        if torch.version.cuda is None:
            return Probe(available=False, reason=f"PyTorch {torch.__version__} is built without CUDA")
        if not torch.cuda.is_available():
            return Probe(available=False, reason="PyTorch finds no CUDA device or driver")
        devices = tuple(describe(torch.device("cuda", i)) for i in range(torch.cuda.device_count()))
        if find_spec("triton") is None:
            return Probe(available=False, reason=_NO_TRITON, devices=devices)
        return Probe(available=True, reason=f"CUDA {torch.version.cuda}, Triton found", devices=devices)

    def memory(self, index: int = 0) -> Memory | None:
        """Return the memory of GPU `index`, or None where there is none."""
        import torch

        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            return None
        free, total = torch.cuda.mem_get_info(index)
        return Memory(total=total, available=free)


def _probe_interpreter() -> Probe:
    if find_spec("triton") is None:
        return Probe(available=False, reason=_NO_TRITON)
    return Probe(available=True, reason="TRITON_INTERPRET=1: interpreted, slow", devices=("cpu",))
