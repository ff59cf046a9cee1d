"""Our own side of each contest: implementations as the backend has them, gradients by autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_cpu.autograd import Differentiable
from helix_cpu.bench.contest import Entry
from helix_cpu.bench.gradients import gradients, with_gradients
from helix_cpu.bench.inputs import EPS
from helix_cpu.ops.causal_conv1d import causal_conv1d as conv_op
from helix_cpu.ops.gated_delta_rule import gated_delta_rule as delta_op
from helix_cpu.ops.gla import gla as gla_op
from helix_cpu.ops.long_conv import long_conv as long_conv_op
from helix_cpu.ops.rms_norm import rms_norm as norm_op
from helix_cpu.ops.rwkv7 import rwkv7 as rwkv7_op
from helix_cpu.ops.selective_scan import selective_scan as scan_op
from helix_cpu.ops.selective_scan import selective_scan_backward
from helix_cpu.ops.ssd_scan import ssd_scan as ssd_op
from helix_cpu.ops.ssd_scan import ssd_scan_backward

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from helix_cpu.bench.inputs import Conv, DeltaRule, Gated, LongConv, Norm, Rwkv, Scan, Ssd

SCAN = Differentiable("selective_scan", scan_op, selective_scan_backward, leaves=(*range(8), 9), n_saved=1)
SSD = Differentiable("ssd_scan", ssd_op, ssd_scan_backward, leaves=(*range(7), 9))


def selective_scan(inputs: Scan) -> Entry:
    """The scan with all that Mamba gives it."""
    arguments = _scan_arguments(inputs)
    return _first(lambda: scan_op(*arguments, True, None, None))


def selective_scan_with_gradients(inputs: Scan) -> Entry:
    """The same and its gradients; what is compared is that of u."""
    return Entry(selective_scan_with_all_gradients(inputs), lambda results: results[1])


def selective_scan_with_all_gradients(inputs: Scan) -> Callable[[], tuple[Tensor, ...]]:
    """Return what runs the scan forward and backward, and gives y and the gradients."""
    leaves = with_gradients(_scan_arguments(inputs))

    def run() -> tuple[Tensor, ...]:
        y, _ = SCAN(*leaves, True, None, None)
        return y, *gradients(y, leaves, inputs.grad)

    return run


def selective_scan_step(inputs: Scan, state: Tensor) -> Entry:
    """One step, from a state that is given."""
    arguments = _scan_arguments(inputs)
    return _first(lambda: scan_op(*arguments, True, state, None))


def ssd_scan(inputs: Ssd) -> Entry:
    """The scan with all that Mamba-2 gives it."""
    arguments = _ssd_arguments(inputs)
    return _first(lambda: ssd_op(*arguments, True, None, None, None))


def ssd_scan_with_gradients(inputs: Ssd) -> Entry:
    """The same and its gradients; what is compared is that of x."""
    leaves = with_gradients(_ssd_arguments(inputs))

    def run() -> Tensor:
        y, _ = SSD(*leaves, True, None, None, None)
        return gradients(y, leaves, inputs.grad)[0]

    return Entry(run, lambda grad: grad)


def causal_conv1d(inputs: Conv) -> Entry:
    """The convolution through silu."""
    return _first(lambda: conv_op(inputs.x, inputs.weight, inputs.bias, True, None, None))


def long_conv(inputs: LongConv) -> Entry:
    """The convolution, its kernel transformed anew each time."""
    return Entry(lambda: long_conv_op(inputs.x, inputs.kernel, None), lambda y: y)


def gated_rms_norm(inputs: Norm) -> Entry:
    """The norm with Mamba-2's gate, which comes first."""
    d_model = inputs.x.shape[-1]

    def run() -> Any:
        return norm_op(inputs.x, inputs.weight, EPS, inputs.z, d_model, norm_before_gate=False)

    return Entry(run, lambda y: y)


def gla(inputs: Gated) -> Entry:
    """Gated linear attention."""
    i = inputs
    return _first(lambda: gla_op(i.q, i.k, i.v, i.g, i.scale, None, None))


def gated_delta_rule(inputs: DeltaRule) -> Entry:
    """The gated delta rule."""
    i = inputs
    return _first(lambda: delta_op(i.q, i.k, i.v, i.g, i.beta, i.scale, None, None))


def rwkv7(inputs: Rwkv) -> Entry:
    """RWKV-7's recurrence."""
    i = inputs
    return _first(lambda: rwkv7_op(i.r, i.w, i.k, i.v, i.a, i.b, None, None))


def _first(run: Callable[[], Any]) -> Entry:
    """Return a contestant that is compared by the first of its results."""
    return Entry(run, lambda results: results[0])


def _scan_arguments(
    i: Scan,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return i.u, i.delta, i.A, i.B, i.C, i.D, i.z, i.delta_bias


def _ssd_arguments(i: Ssd) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return i.x, i.dt, i.A, i.B, i.C, i.D, i.dt_bias
