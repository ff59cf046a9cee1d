"""RWKV-7's recurrence: a decaying memory that is read along one vector and written along another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from helix_cpu.library import Kernel
from helix_cpu.ops import _linear_attention as shared

if TYPE_CHECKING:
    from torch import Tensor

_FORWARD = Kernel("rwkv7", shared.FORWARD)
_BACKWARD = Kernel("rwkv7_backward", shared.BACKWARD)


def rwkv7(
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64."""
    return shared.forward(_FORWARD, shared.Tokens(r, k, v, w, a, b), 1.0, initial_state, cu_seqlens)


def rwkv7_backward(
    grad_o: Tensor | None,
    grad_final_state: Tensor | None,
    r: Tensor,
    w: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    grads, tokens = (grad_o, grad_final_state), shared.Tokens(r, k, v, w, a, b)
    found = shared.backward(_BACKWARD, grads, tokens, 1.0, initial_state, cu_seqlens)
    if found is NotImplemented:
        return found
    grad_r, grad_k, grad_v, grad_w, grad_a, grad_b, *_, grad_initial_state = found
    return grad_r, grad_w, grad_k, grad_v, grad_a, grad_b, grad_initial_state
