"""What helix-cuda offers: the backend `cuda-triton`, and the commands that compile, tune and check it."""

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
            summary="Triton kernels for NVIDIA GPUs, or interpreted on the CPU",
        )
    ]


@helix_kernel.hookimpl
def helix_commands() -> list[Component]:
    """Return the commands."""
    return [
        Component(
            name="cuda-check",
            aliases=("cuda check",),
            target="helix_cuda.commands:check",
            summary="Hold the kernels to their ops' contracts on the GPU here",
        ),
        Component(
            name="cuda-compile",
            aliases=("cuda compile",),
            target="helix_cuda.commands:compile_kernels",
            summary="Compile the kernels for a GPU that need not be here, and show what they take of it",
        ),
        Component(
            name="cuda-warmup",
            aliases=("cuda warmup",),
            target="helix_cuda.commands:warmup",
            summary="Compile and tune what a config's model needs on the GPU here",
        ),
    ]
