"""Gated linear attention: every row of the memory decays at a rate of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels.gla import step
from helix_cuda.ops.gla_chunks import Call

if TYPE_CHECKING:
    from torch import Tensor

_WIDEST = 256
"""Channels of a key that one program holds; with more, the op is left to another backend."""


def gla(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64, nor of keys over 256 channels."""
    tokens = (q, k, v, g)
    if not serves(*tokens, initial_state) or q.shape[3] > _WIDEST:
        return NotImplemented
    if not q.numel() or not v.numel():
        o = torch.zeros_like(v, memory_format=torch.contiguous_format)
        return o, _first_state(q, v, cu_seqlens, initial_state)
    if q.shape[1] == 1 and cu_seqlens is None:
        return _step(tokens, scale, initial_state)
    return Call(tokens, scale, cu_seqlens).results(initial_state)


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
    """Compute the op's gradient as its contract says; declines what the op does."""
    tokens = (q, k, v, g)
    given = (*tokens, initial_state)
    if not serves(*given, grad_o, grad_final_state) or q.shape[3] > _WIDEST:
        return NotImplemented
    if not q.numel() or not v.numel():
        zeros = (torch.zeros_like(tensor) for tensor in tokens)
        return as_given((*zeros, _first_state(q, v, cu_seqlens, grad_final_state)), given)
    grad_o = torch.zeros_like(v) if grad_o is None else grad_o
    call = Call(tokens, scale, cu_seqlens)
    return as_given(call.gradients(grad_o, grad_final_state, initial_state), given)


def _step(tokens: tuple[Tensor, ...], scale: float, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Run the one token of each row, in one launch."""
    batch_size, _, n_heads, k_dim = tokens[0].shape
    v = tokens[2]
    v_dim = v.shape[3]
    o = torch.empty_like(v, memory_format=torch.contiguous_format)
    state = torch.empty(batch_size, n_heads, k_dim, v_dim, dtype=torch.float32, device=v.device)
    places = [rows(tensor.flatten(1)) for tensor in tokens]
    step[lambda meta: (batch_size * triton.cdiv(v_dim, meta["BLOCK_V"]), n_heads)](
        *(tensor for tensor, _ in places),
        state if initial_state is None else initial_state.contiguous(),
        o,
        state,
        scale,
        n_heads,
        k_dim,
        v_dim,
        *(stride for _, stride in places),
        BLOCK_K=triton.next_power_of_2(k_dim),
        STARTS=initial_state is not None,
    )
    return o, state


def _first_state(q: Tensor, v: Tensor, cu_seqlens: Tensor | None, given: Tensor | None) -> Tensor:
    """Return a state as it is where no token changes it, zero where none is given, in float32."""
    if given is not None:
        return given.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    n_sequences = q.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    return q.new_zeros(n_sequences, *q.shape[2:], v.shape[3], dtype=torch.float32)
