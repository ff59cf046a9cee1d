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
    """Differentiate: g_t = dh_t + conj(a_{t+1}) g_{t+1} is the gradient of b_t, g_t conj(h_{t-1}) of a_t.

    Both are computed conjugated, which needs no conjugate copies of a and h.
    """
    args = _Arguments.widen(a, b, initial_state, cu_seqlens)
    _scan_(args.a, args.b, args.state)
    grad_h = torch.zeros_like(b) if grad_h is None else grad_h
    grads, grad_state = _scan_back(args, grad_h, grad_final_state)
    grad_a = torch.empty_like(grads)
    torch.mul(grads[:, :1], args.state[:, None], out=grad_a[:, :1])
    torch.mul(grads[:, 1:], args.b[:, :-1], out=grad_a[:, 1:])
    if args.packing is not None:
        grad_a, grads = args.packing.cut(grad_a), args.packing.cut(grads)
    grad_a = grad_a.sum((0, 1)) if a.dim() == 1 else grad_a
    nothing = b.new_empty(0)
    return (
        grad_a.conj_physical_().to(a.dtype),
        grads.conj_physical_().to(b.dtype),
        nothing if initial_state is None else grad_state.conj_physical_().to(initial_state.dtype),
    )


def _scan_back(args: _Arguments, grad_h: Tensor, grad_final_state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the conjugated gradients of b (B, L, D) and of the initial state (B, D)."""
    grads = _own(grad_h, args.b.dtype) if args.packing is None else args.packing.pad(grad_h.to(args.b.dtype))
    grads.conj_physical_()
    grad_state = torch.zeros_like(args.state)
    if grad_final_state is not None:
        grad_state += grad_final_state.conj()
    if not grads.shape[1]:
        return grads, grad_state
    last = grads[:, -1].add_(grad_state)
    first = _scan_(args.a[:, 1:], grads[:, :-1], last, reverse=True)
    return grads, args.a[:, 0] * first


def _own(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return x in the dtype, contiguous, in memory of its own."""
    return x.to(dtype, copy=True, memory_format=torch.contiguous_format)


_SHORT = 16
"""Below so many steps, chunks cost more calls than they save."""


class _Arguments(NamedTuple):
    """Arguments of the op in one dtype, packed sequences as a batch."""

    a: Tensor  # (B, L, D), or (1, L, D), an expanded view of factors that are the same at each step
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
        factors = a.to(dtype).expand(1, *b.shape[1:]) if a.dim() == 1 else a.to(dtype)
        if cu_seqlens is None:
            return cls(factors, _own(b, dtype), state.to(dtype), None)
        packing = Packing.of(cu_seqlens, b.shape[1])
        return cls(packing.pad(factors, fill=1.0), packing.pad(b.to(dtype)), state.to(dtype), packing)


def _scan_(a: Tensor, x: Tensor, state: Tensor, *, reverse: bool = False) -> Tensor:
    """Replace inputs x (B, L, D) by the states after each step, in order of time or against it.

    Args:
        a: Factors (B, L, D) or (1, L, D).
        x: Inputs, replaced.
        state: State before the first step (B, D).
        reverse: Whether the last step of x comes first.

    Returns:
        The state after the last step (B, D).
    """
    seq_len = x.shape[1]
    n_steps = math.isqrt(seq_len)
    whole = 0 if seq_len < _SHORT else seq_len - seq_len % n_steps
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
    factors, inputs = (
        _in_time(tensor.view(tensor.shape[0], n_chunks, n_steps, x.shape[2]), dim=2, reverse=reverse)
        for tensor in (a, x)
    )
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
