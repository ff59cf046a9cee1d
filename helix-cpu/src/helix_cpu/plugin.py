"""What helix-cpu offers: the backend `cpu-simd`."""

from __future__ import annotations

import helix_kernel
from helix_kernel import Component


@helix_kernel.hookimpl
def helix_backends() -> list[Component]:
    """Return the backend."""
    return [
        Component(
            name="cpu-simd",
            target="helix_cpu.backend:CPUBackend",
            summary="SIMD kernels for the CPU (none yet: it probes and measures memory)",
        )
    ]
