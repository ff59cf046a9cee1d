"""jax: the recurrences by `jax.lax.scan`, compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from helix_cpu.bench.contest import Entry
from helix_cpu.bench.peers import require

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from helix_cpu.bench.inputs import Scan, Ssd


def selective_scan(inputs: Scan) -> Entry:
    """Mamba's scan, one step of time at a time."""
    return _compiled(_scan(), _scan_arguments(inputs))


def selective_scan_with_gradients(inputs: Scan) -> Entry:
    """The same and its gradients."""
    return _compiled(_differentiated(_scan()), (*_scan_arguments(inputs), inputs.grad))


def selective_scan_step(inputs: Scan, state: Tensor) -> Entry:
    """Mamba's scan over a single step from a given state."""
    return _compiled(_scan(), (*_scan_arguments(inputs), state))


def ssd_scan(inputs: Ssd) -> Entry:
    """Mamba-2's scan, one step of time at a time."""
    return _compiled(_ssd(), _ssd_arguments(inputs))


def ssd_scan_with_gradients(inputs: Ssd) -> Entry:
    """The same and its gradients."""
    return _compiled(_differentiated(_ssd()), (*_ssd_arguments(inputs), inputs.grad))


def _scan() -> Callable[..., Any]:
    jax = require("jax", "jax")
    numpy = jax.numpy

    def scan(
        u: Any, delta: Any, A: Any, B: Any, C: Any, D: Any, z: Any, delta_bias: Any, state: Any = None
    ) -> Any:
        def step(h: Any, at: Any) -> Any:
            u_t, dt_t, B_t, C_t = at
            h = numpy.exp(dt_t[..., None] * A) * h + (dt_t * u_t)[..., None] * B_t[:, None]
            return h, (h * C_t[:, None]).sum(-1)

        dt = jax.nn.softplus(delta + delta_bias)
        h = numpy.zeros((u.shape[0], *A.shape), u.dtype) if state is None else state
        _, ys = jax.lax.scan(step, h, tuple(numpy.swapaxes(each, 0, 1) for each in (u, dt, B, C)))
        return (numpy.swapaxes(ys, 0, 1) + D * u) * jax.nn.silu(z)

    return scan


def _ssd() -> Callable[..., Any]:
    jax = require("jax", "jax")
    numpy = jax.numpy

    def ssd(x: Any, dt: Any, A: Any, B: Any, C: Any, D: Any, dt_bias: Any) -> Any:
        def step(h: Any, at: Any) -> Any:
            x_t, dt_t, B_t, C_t = at
            written = (dt_t[..., None] * x_t)[..., None] * B_t[:, None, None]
            h = numpy.exp(dt_t * A)[..., None, None] * h + written
            return h, numpy.einsum("bhpn,bn->bhp", h, C_t)

        dt = jax.nn.softplus(dt + dt_bias)
        h = numpy.zeros((x.shape[0], *x.shape[2:], B.shape[-1]), x.dtype)
        by_time = tuple(numpy.swapaxes(each, 0, 1) for each in (x, dt, B[:, :, 0], C[:, :, 0]))
        _, ys = jax.lax.scan(step, h, by_time)
        return numpy.swapaxes(ys, 0, 1) + D[:, None] * x

    return ssd


def _differentiated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that gives gradients of all arguments but the last, which is the result's."""
    jax = require("jax", "jax")

    def grads(*arguments: Any) -> Any:
        *leaves, grad = arguments
        return jax.vjp(function, *leaves)[1](grad)

    return grads


def _compiled(function: Callable[..., Any], tensors: tuple[Tensor, ...]) -> Entry:
    jax = require("jax", "jax")
    arrays = tuple(jax.device_put(tensor.numpy(), jax.devices("cpu")[0]) for tensor in tensors)
    compiled = jax.jit(function).lower(*arrays).compile()
    return Entry(lambda: jax.block_until_ready(compiled(*arrays)), _read)


def _read(result: Any) -> Tensor:
    import numpy as np

    return torch.from_numpy(np.array(result[0] if isinstance(result, tuple) else result))


def _scan_arguments(i: Scan) -> tuple[Tensor, ...]:
    return i.u, i.delta, i.A, i.B, i.C, i.D, i.z, i.delta_bias


def _ssd_arguments(i: Ssd) -> tuple[Tensor, ...]:
    return i.x, i.dt, i.A, i.B, i.C, i.D, i.dt_bias
