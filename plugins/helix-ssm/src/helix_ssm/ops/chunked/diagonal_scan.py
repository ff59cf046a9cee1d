"""The diagonal scan in sqrt(L) chunks of sqrt(L) steps, with its gradient written by hand.

All chunks run side by side, so that one call serves a step of every chunk: first from zero, which gives
what each chunk adds to the state and by which product of factors it multiplies it; then, with the
states at the chunks' starts known, the recurrence itself. Nothing is divided, so that factors may be 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from helix_ssm.ops._check import compute_dtype, n_states
from helix_ssm.ops.chunked.packed import Packing

if TYPE_CHECKING:
    from collections.abc import Sequence


def diagonal_scan(
    a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    args = _Arguments.widen(a, b, initial_state, cu_seqlens)
    final_state = _scan_(args.a, args.b, args.state)
    h = args.b if args.packing is None else args.packing.cut(args.b)
    return h.to(b.dtype), final_state.clone(memory_format=torch.contiguous_format)


def diagonal_scan_backward(
    grad_h: Tensor | None,
    grad_final_state: Tensor | None,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Differentiate: with g_t the gradient of h_t, g_t += conj(a_{t+1}) g_{t+1}, da_t = g_t conj(h_{t-1})."""
    args = _Arguments.widen(a, b, initial_state, cu_seqlens)
    grad_h = torch.zeros_like(b) if grad_h is None else grad_h
    grad_h = grad_h.to(args.b.dtype) if args.packing is None else args.packing.pad(grad_h.to(args.b.dtype))
    # Both rows begin with the initial state, one step before the first token.
    grads = torch.cat([torch.zeros_like(args.state)[:, None], grad_h], dim=1)
    if grad_final_state is not None:
        grads[:, -1] += grad_final_state
    _scan_(args.a.conj().resolve_conj(), grads[:, :-1], grads[:, -1], reverse=True)
    _scan_(args.a, args.b, args.state)
    before = torch.cat([args.state[:, None], args.b], dim=1)[:, :-1]
    grad_a, grad_b = before.conj_physical_().mul_(grads[:, 1:]), grads[:, 1:]
    if args.packing is not None:
        grad_a, grad_b = args.packing.cut(grad_a), args.packing.cut(grad_b)
    grad_a = grad_a.sum((0, 1)) if a.dim() == 1 else grad_a
    return (
        grad_a.to(a.dtype).contiguous(),
        grad_b.to(b.dtype).contiguous(),
        b.new_empty(0) if initial_state is None else grads[:, 0].to(initial_state.dtype).contiguous(),
    )


_SHORT = 16
"""Below so many steps, chunks cost more calls than they save."""


class _Arguments(NamedTuple):
    """Arguments of the op in one dtype, packed sequences as a batch."""

    a: Tensor  # (B, L, D), or (1, 1, D) for factors that are the same at each step
    b: Tensor  # (B, L, D), memory of its own
    state: Tensor  # (B, D)
    packing: Packing | None

    @classmethod
    def widen(
        cls, a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None
    ) -> _Arguments:
        dtype = compute_dtype(a, b, initial_state)
        rows = n_states(cu_seqlens, b.shape[0])
        state = b.new_zeros(rows, b.shape[2]) if initial_state is None else initial_state
        factors = a.to(dtype).expand(1, 1, -1) if a.dim() == 1 else a.to(dtype)
        if cu_seqlens is None:
            inputs = b.to(dtype, copy=True, memory_format=torch.contiguous_format)
            return cls(factors, inputs, state.to(dtype), None)
        packing = Packing.of(cu_seqlens, b.shape[1])
        factors = packing.pad(factors.expand(b.shape), fill=1.0)
        return cls(factors, packing.pad(b.to(dtype)), state.to(dtype), packing)


def _scan_(a: Tensor, x: Tensor, state: Tensor, *, reverse: bool = False) -> Tensor:
    """Replace inputs x (B, L, D) by the states after each step, in order of time or against it.

    Args:
        a: Factors (B, L, D), or (1, 1, D) for all steps.
        x: Inputs, replaced.
        state: State before the first step (B, D).
        reverse: Whether the last step of x comes first.

    Returns:
        The state after the last step (B, D).
    """
    seq_len = x.shape[1]
    n_steps = math.isqrt(seq_len)
    whole = 0 if seq_len < _SHORT else seq_len - seq_len % n_steps
    a = a.expand(a.shape[0], seq_len, a.shape[2])
    rest = (_in_time(a[:, whole:], reverse=reverse), _in_time(x[:, whole:], reverse=reverse))
    if reverse:
        state = _run_(*rest, state)
    if whole:
        state = _scan_chunks_(a[:, :whole], x[:, :whole], state, n_steps, reverse=reverse)
    return state if reverse else _run_(*rest, state)


def _scan_chunks_(a: Tensor, x: Tensor, state: Tensor, n_steps: int, *, reverse: bool) -> Tensor:
    """Do what `_scan_` does, for a length that is a multiple of `n_steps`."""
    n_chunks = x.shape[1] // n_steps
    # Each step of all chunks, (B, n_chunks, D).
    factors = _in_time(a.view(a.shape[0], n_chunks, n_steps, -1), dim=2, reverse=reverse)
    inputs = _in_time(x.view(x.shape[0], n_chunks, n_steps, -1), dim=2, reverse=reverse)
    ends, products = inputs[0].clone(), factors[0].clone()
    for a_t, x_t in zip(factors[1:], inputs[1:], strict=True):
        torch.addcmul(x_t, a_t, ends, out=ends)
        products.mul_(a_t)
    starts = torch.empty_like(ends)
    by_chunk = (_in_time(tensor, reverse=reverse) for tensor in (products, ends, starts))
    for product, end, start in zip(*by_chunk, strict=True):
        start.copy_(state)
        state = torch.addcmul(end, product, state)
    return _run_(factors, inputs, starts)[:, 0 if reverse else -1]


def _run_(factors: Sequence[Tensor], inputs: Sequence[Tensor], state: Tensor) -> Tensor:
    """Run the recurrence step by step, replacing inputs by states; returns the last one."""
    for a_t, x_t in zip(factors, inputs, strict=True):
        state = x_t.addcmul_(a_t, state)
    return state


def _in_time(x: Tensor, dim: int = 1, *, reverse: bool) -> Sequence[Tensor]:
    """Return the steps along `dim`, the last one first where time runs backwards."""
    steps: Sequence[Tensor] = x.unbind(dim)
    return steps[::-1] if reverse else steps
