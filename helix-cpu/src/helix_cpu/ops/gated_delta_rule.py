"""Gated delta rule: a memory that decays, and in which each write first removes what the key held."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_cpu.library import Kernel
from helix_cpu.ops import _linear_attention as shared

if TYPE_CHECKING:
    from torch import Tensor

_FORWARD = Kernel("gated_delta_rule", shared.FORWARD)
_BACKWARD = Kernel("gated_delta_rule_backward", shared.BACKWARD)


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64."""
    tokens = shared.Tokens(q, k, v, log_decay=g, beta=beta)
    return shared.forward(_FORWARD, tokens, scale, initial_state, cu_seqlens)


def gated_delta_rule_backward(
    grad_o: Tensor | None,
    grad_final_state: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    grads, tokens = (grad_o, grad_final_state), shared.Tokens(q, k, v, log_decay=g, beta=beta)
    found = shared.backward(_BACKWARD, grads, tokens, scale, initial_state, cu_seqlens)
    if found is NotImplemented:
        return found
    grad_q, grad_k, grad_v, *_, grad_g, grad_beta, grad_initial_state = found
    return grad_q, grad_k, grad_v, grad_g, grad_beta, grad_initial_state
