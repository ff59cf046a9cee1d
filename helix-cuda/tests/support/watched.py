"""The backend under test, alone and watched: a test that a reference passes in its stead shows nothing."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property

import torch

from helix_cuda.backend import CUDABackend
from helix_kernel.backends import BackendSelector

_DOUBLE = (torch.float64, torch.complex128)


class Watched(CUDABackend):
    """Notes which of the backend's ops were served, and which were declined that are not in float64."""

    def __init__(self):
        self.served = set()
        self.declined = set()

    @cached_property
    def ops(self):
        return {name: self._watched(name, kernel) for name, kernel in super().ops.items()}

    def _watched(self, name, kernel):
        def watched(*args):
            results = kernel(*args)
            if results is not NotImplemented:
                self.served.add(name)
            elif not any(torch.is_tensor(arg) and arg.dtype in _DOUBLE for arg in args):
                self.declined.add(name)
            return results

        return watched


@contextmanager
def kernels_alone():
    """Put `cuda-triton` into force, alone; an op that it declines fails, but in float64."""
    backend = Watched()
    with BackendSelector({"cuda-triton": backend}).using(["cuda-triton"]):
        yield backend
    assert not backend.declined, (
        f"the reference served {sorted(backend.declined)}, which the kernels declined"
    )


@contextmanager
def kernels_serving():
    """Do as `kernels_alone`, and fail where no kernel was called: the references served then."""
    with kernels_alone() as backend:
        yield backend
    assert backend.served, "no kernel was called: is the op among helix_cuda.ops.NAMES?"
