"""The selective scan in chunks of time, with its gradient written by hand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype, n_states
from helix_ssm.ops.chunked.packed import Packing
from helix_ssm.ops.chunked.scan import scan, scan_backward

_SOFTPLUS = (1.0, 20.0)  # beta and threshold, as F.softplus has them


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the op as its contract says."""
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    args = _Arguments.widen(*given, softplus=delta_softplus, n_states=n_states(cu_seqlens, u.shape[0]))
    packing = None if cu_seqlens is None else Packing.of(cu_seqlens, u.shape[1])
    y, last, states = scan(*args.batch(packing))
    if packing is not None:
        y, states = packing.cut(y), states.new_empty(0, 1, *states.shape[2:])
    y = y.flatten(2)
    if D is not None:
        y.addcmul_(args.u.flatten(2), D.to(y.dtype))
    if z is not None:
        y.mul_(F.silu(z.to(y.dtype)))
    return y.to(u.dtype), _as_rows(last), states


def selective_scan_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    states: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the op's gradient as its contract says."""
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    args = _Arguments.widen(*given, softplus=delta_softplus, n_states=n_states(cu_seqlens, u.shape[0]))
    grad_y = torch.zeros_like(args.u) if grad_y is None else grad_y.to(args.u.dtype).view(args.u.shape)
    gate = None if z is None else z.to(args.u.dtype).view(args.u.shape)
    skip = None if D is None else D.to(args.u.dtype).view(args.u.shape[2:])
    grad_inner = grad_y if gate is None else grad_y * F.silu(gate)
    grad_state = (
        torch.zeros_like(args.state)
        if grad_final_state is None
        else _as_groups(grad_final_state.to(args.u.dtype), args.u.shape[2])
    )
    packing = None if cu_seqlens is None else Packing.of(cu_seqlens, u.shape[1])
    y, grad_dt, grad_x, grad_A, grad_B, grad_C, grad_state = _scan_backward(
        grad_inner, grad_state, states, args, packing
    )
    grad_dt.addcmul_(grad_x, args.u)
    grad_u = grad_x.mul_(args.dt)
    if skip is not None:
        grad_u.addcmul_(grad_inner, skip)
        y.addcmul_(args.u, skip)
    if args.before_softplus is not None:
        grad_dt = torch.ops.aten.softplus_backward(grad_dt, args.before_softplus, *_SOFTPLUS)
    grads = (
        grad_u,
        grad_dt,
        grad_A.transpose(1, 2),
        grad_B,
        grad_C,
        None if skip is None else (grad_inner * args.u).sum((0, 1)),
        None if gate is None else torch.ops.aten.silu_backward(y.mul_(grad_y), gate),
        None if delta_bias is None else grad_dt.sum((0, 1)),
        _as_rows(grad_state),
    )
    return tuple(
        _shape_as(grad, like) if like is not None else u.new_empty(0)
        for grad, like in zip(grads, given, strict=True)
    )


def _scan_backward(
    grad_y: Tensor, grad_state: Tensor, states: Tensor, args: _Arguments, packing: Packing | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Differentiate the scan, over the sequences of a packed row where there is one.

    Of a packed row no states are kept: the scan runs again for them.
    """
    given = args.batch(packing)
    if packing is None:
        return scan_backward(grad_y, grad_state, states, *given)
    _, _, states = scan(*given)
    y, grad_dt, grad_x, grad_A, grad_B, grad_C, grad_state = scan_backward(
        packing.pad(grad_y), grad_state, states, *given
    )
    y, grad_dt, grad_x, grad_B, grad_C = (packing.cut(x) for x in (y, grad_dt, grad_x, grad_B, grad_C))
    return y, grad_dt, grad_x, grad_A, grad_B, grad_C, grad_state


class _Arguments(NamedTuple):
    """Arguments of the op in one dtype, laid out in G groups of K channels."""

    u: Tensor  # (B, L, G, K)
    dt: Tensor  # (B, L, G, K)
    before_softplus: Tensor | None  # (B, L, G, K)
    A: Tensor  # (G, N, K)
    B: Tensor  # (B, L, G, N)
    C: Tensor  # (B, L, G, N)
    state: Tensor  # (B, G, N, K), or (n, G, N, K) of n packed sequences

    def batch(self, packing: Packing | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return what `scan` takes; packed sequences as a batch, their padding with a step size of 0."""
        x = self.dt * self.u
        if packing is None:
            return self.dt, x, self.A, self.B, self.C, self.state
        dt, x, B, C = (packing.pad(tensor) for tensor in (self.dt, x, self.B, self.C))
        return dt, x, self.A, B, C, self.state

    @classmethod
    def widen(
        cls,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        initial_state: Tensor | None,
        *,
        softplus: bool,
        n_states: int,
    ) -> _Arguments:
        dtype = compute_dtype(u, delta, A, B, C, D, z, delta_bias, initial_state)
        batch_size, seq_len, d_model = u.shape
        groups = B.shape[2] if B.dim() == 4 else 1
        channels = (batch_size, seq_len, groups, d_model // groups)
        projections = (batch_size, seq_len, groups, A.shape[1])
        dt = delta.to(dtype) if delta_bias is None else delta.to(dtype) + delta_bias.to(dtype)
        dt = dt.reshape(channels)
        rows = A.new_zeros(n_states, *A.shape) if initial_state is None else initial_state
        return cls(
            u=u.to(dtype).reshape(channels),
            dt=F.softplus(dt, *_SOFTPLUS) if softplus else dt,
            before_softplus=dt if softplus else None,
            A=_as_groups(A.to(dtype).unsqueeze(0), groups)[0],
            B=B.to(dtype).reshape(projections),
            C=C.to(dtype).reshape(projections),
            state=_as_groups(rows.to(dtype), groups),
        )


def _as_groups(rows: Tensor, groups: int) -> Tensor:
    """Lay (B, D, N) out as (B, G, N, K), channels last."""
    batch_size, d_model, d_state = rows.shape
    return rows.reshape(batch_size, groups, d_model // groups, d_state).transpose(2, 3).contiguous()


def _as_rows(grouped: Tensor) -> Tensor:
    """Lay (B, G, N, K) out as (B, D, N)."""
    return grouped.transpose(2, 3).flatten(1, 2).clone(memory_format=torch.contiguous_format)


def _shape_as(grad: Tensor | None, like: Tensor) -> Tensor:
    assert grad is not None
    return grad.reshape(like.shape).to(like.dtype).contiguous()
