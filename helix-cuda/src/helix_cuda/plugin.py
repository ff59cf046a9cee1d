"""What helix-cuda offers: the backend `cuda-triton`."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_backends() -> list[Component]:
    """Return the backend."""
    return [
        Component(
            name="cuda-triton",
            target="helix_cuda.backend:CUDABackend",
            summary="Triton kernels for NVIDIA GPUs (none yet: it probes and measures memory)",
        )
    ]
