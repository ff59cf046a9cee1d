"""mambapy's parallel scan in PyTorch, which trains Mamba on a CPU without a loop over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.nn import functional as F

from helix_cpu.bench.contest import Entry
from helix_cpu.bench.gradients import gradients, with_gradients
from helix_cpu.bench.peers import require

if TYPE_CHECKING:
    from torch import Tensor

    from helix_cpu.bench.inputs import Scan


def selective_scan(inputs: Scan) -> Entry:
    """The scan as its Mamba block runs it."""
    pscan = _pscan()
    i = inputs
    leaves = (i.u, i.delta, i.A, i.B, i.C, i.D, i.z, i.delta_bias)
    return Entry(lambda: _scan(pscan, leaves), lambda y: y)


def selective_scan_with_gradients(inputs: Scan) -> Entry:
    """The same and its gradients."""
    pscan = _pscan()
    i = inputs
    leaves = with_gradients((i.u, i.delta, i.A, i.B, i.C, i.D, i.z, i.delta_bias))
    return Entry(lambda: gradients(_scan(pscan, leaves), leaves, i.grad)[0], lambda grad: grad)


def _pscan() -> Any:
    return require("mambapy.pscan", "mambapy").pscan


def _scan(pscan: Any, leaves: tuple[Tensor, ...]) -> Tensor:
    u, delta, A, B, C, D, z, delta_bias = leaves
    dt = F.softplus(delta + delta_bias)
    decays = (dt[..., None] * A).exp()
    states = pscan(decays, (dt * u)[..., None] * B[:, :, None])
    y: Tensor = (states @ C[..., None])[..., 0] + D * u
    return y * F.silu(z)
