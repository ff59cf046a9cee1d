"""Hugging Face transformers on a CPU: what its Mamba models run where `mamba_ssm` is not installed.

Its functions are called in its own layout, channels before time, on tensors laid out for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.bench.contest import AbsentError, Entry
from helix_cpu.bench.gradients import gradients, with_gradients
from helix_cpu.bench.inputs import EPS
from helix_cpu.bench.peers import installed, require

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor

    from helix_cpu.bench.inputs import Conv, Norm, Scan, Ssd

DISTRIBUTION = "transformers"
_MAMBA = "transformers.models.mamba.modeling_mamba"
_MAMBA2 = "transformers.models.mamba2.modeling_mamba2"
_CHUNK = 256
"""Tokens in a chunk, as Mamba-2's config has it."""


def selective_scan(inputs: Scan) -> Entry:
    """Mamba's loop over time."""
    run = _function(_MAMBA, "mamba_selective_scan")
    leaves = _channels_first(inputs)
    return Entry(lambda: _scan(run, leaves), lambda y: y.transpose(1, 2))


def selective_scan_with_gradients(inputs: Scan) -> Entry:
    """The same and its gradients."""
    run = _function(_MAMBA, "mamba_selective_scan")
    leaves = with_gradients(_channels_first(inputs))
    grad = inputs.grad.transpose(1, 2).contiguous()
    return Entry(lambda: gradients(_scan(run, leaves), leaves, grad)[0], lambda grad: grad.transpose(1, 2))


def selective_scan_step(inputs: Scan, state: Tensor) -> Entry:
    """Mamba's step, which writes the new state over the old one."""
    run = _function(_MAMBA, "mamba_selective_state_update")
    state = state.clone()
    u, delta, B, C, z = (tensor[:, 0] for tensor in (inputs.u, inputs.delta, inputs.B, inputs.C, inputs.z))
    rest = {"D": inputs.D, "dt_bias": inputs.delta_bias, "dt_softplus": True, "z": z}
    return Entry(lambda: run(state, u, delta, inputs.A, B, C, **rest), lambda y: y[:, None])


def ssd_scan(inputs: Ssd) -> Entry:
    """Mamba-2's chunked matrix products."""
    run = _function(_MAMBA2, "mamba2_chunk_scan")
    i = inputs
    rest = {"D": i.D, "dt_bias": i.dt_bias, "dt_softplus": True}
    return Entry(lambda: run(i.x, i.dt, i.A, i.B, i.C, _CHUNK, **rest), lambda y: y)


def ssd_scan_with_gradients(inputs: Ssd) -> Entry:
    """The same and its gradients."""
    run = _function(_MAMBA2, "mamba2_chunk_scan")
    i = inputs
    leaves = with_gradients((i.x, i.dt, i.A, i.B, i.C, i.D, i.dt_bias))

    def compute() -> Tensor:
        *main, D, dt_bias = leaves
        y = run(*main, _CHUNK, D=D, dt_bias=dt_bias, dt_softplus=True)
        return gradients(y, leaves, i.grad)[0]

    return Entry(compute, lambda grad: grad)


def causal_conv1d(inputs: Conv) -> Entry:
    """PyTorch's depthwise convolution, then silu."""
    run = _function(_MAMBA, "causal_conv1d_fn")
    x = inputs.x.transpose(1, 2).contiguous()
    rest = {"bias": inputs.bias, "activation": "silu"}
    return Entry(lambda: run(x, inputs.weight, **rest), lambda y: y.transpose(1, 2))


def gated_rms_norm(inputs: Norm) -> Entry:
    """Mamba-2's gated norm."""
    layer = _function(_MAMBA2, "MambaRMSNormGated")(inputs.x.shape[-1], inputs.x.shape[-1], eps=EPS)
    layer.weight.data = inputs.weight

    def run() -> Any:
        with torch.no_grad():
            return layer(inputs.x, inputs.z)

    return Entry(run, lambda y: y)


def _function(module: str, name: str) -> Any:
    """Return a function of transformers, undecorated by any patch.

    Raises:
        AbsentError: It is not installed, or its version has no such function.
    """
    found: ModuleType = require(module, DISTRIBUTION)
    if not hasattr(found, name):
        version = installed(DISTRIBUTION)
        raise AbsentError(f"transformers {version} has no {name}: pip install 'transformers>=5.23'")
    return getattr(found, name)


def _channels_first(i: Scan) -> tuple[Tensor, ...]:
    u, delta, B, C, z = (tensor.transpose(1, 2).contiguous() for tensor in (i.u, i.delta, i.B, i.C, i.z))
    return u, delta, i.A, B, C, i.D, z, i.delta_bias


def _scan(run: Any, leaves: tuple[Tensor, ...]) -> Any:
    u, delta, A, B, C, D, z, delta_bias = leaves
    return run(u, delta, A, B, C, D=D, z=z, delta_bias=delta_bias, delta_softplus=True)
