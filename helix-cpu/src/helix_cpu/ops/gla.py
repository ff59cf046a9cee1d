"""Gated linear attention: every row of the memory decays at a rate of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_cpu.library import Kernel
from helix_cpu.ops import _linear_attention as shared

if TYPE_CHECKING:
    from torch import Tensor

_FORWARD = Kernel("gla", shared.FORWARD)
_BACKWARD = Kernel("gla_backward", shared.BACKWARD)


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64."""
    return shared.forward(_FORWARD, shared.Tokens(q, k, v, gate=g), scale, initial_state, cu_seqlens)


def gla_backward(
    grad_o: Tensor | None,
    grad_final_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    grads, tokens = (grad_o, grad_final_state), shared.Tokens(q, k, v, gate=g)
    found = shared.backward(_BACKWARD, grads, tokens, scale, initial_state, cu_seqlens)
    if found is NotImplemented:
        return found
    grad_q, grad_k, grad_v, grad_g, *_, grad_initial_state = found
    return grad_q, grad_k, grad_v, grad_g, grad_initial_state
