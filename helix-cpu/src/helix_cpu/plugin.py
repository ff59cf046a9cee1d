"""What helix-cpu offers: the backend `cpu-simd`, and the command that times it."""

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
            summary="SIMD kernels for the CPU, compiled for each instruction set",
        )
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the command."""
    return [
        Component(
            name="bench",
            target="helix_cpu.commands:bench",
            summary="Time kernels beside what else there is: helix bench ops",
        )
    ]
