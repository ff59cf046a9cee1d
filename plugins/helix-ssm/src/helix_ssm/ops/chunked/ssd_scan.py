"""The state-space duality's recurrence in chunks of time, with its gradient written by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype, n_states
from helix_ssm.ops.chunked.packed import Packing
from helix_ssm.ops.chunked.ssd import Chunk, by_head, by_token
from helix_ssm.ops.ssd_scan import CHUNK

if TYPE_CHECKING:
    from collections.abc import Sequence

_SOFTPLUS = (1.0, 20.0)  # beta and threshold, as F.softplus has them


def ssd_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: FBT001 - the op's schema
    dt_limit: Sequence[float] | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; one token is left to the reference, which takes fewer calls."""
    if x.shape[1] == 1:
        return NotImplemented
    dtype = compute_dtype(x, dt, A, B, C, D, dt_bias, initial_state)
    steps = _Steps.of(dt.to(dtype), dt_bias, dt_limit, softplus=dt_softplus)
    rows = n_states(cu_seqlens, x.shape[0])
    inputs = _Inputs.of(x, steps.limited, A, B, C, D, initial_state, rows=rows)
    if cu_seqlens is None:
        y, state = _run(inputs)
    else:
        packing = Packing.of(cu_seqlens, x.shape[1])
        y, state = _run(inputs.pad(packing))
        y = packing.cut(y)
    return y.view(x.shape), state.flatten(1, 2)


def ssd_scan_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_softplus: bool,  # noqa: FBT001 - the op's schema
    dt_limit: Sequence[float] | None,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, ...]:
    """Compute the op's gradient as its contract says."""
    dtype = compute_dtype(x, dt, A, B, C, D, dt_bias, initial_state)
    steps = _Steps.of(dt.to(dtype), dt_bias, dt_limit, softplus=dt_softplus)
    rows = n_states(cu_seqlens, x.shape[0])
    inputs = _Inputs.of(x, steps.limited, A, B, C, D, initial_state, rows=rows)
    grad_y = torch.zeros_like(inputs.x) if grad_y is None else grad_y.reshape(inputs.x.shape)
    grad_state = (
        torch.zeros_like(inputs.state)
        if grad_final_state is None
        else grad_final_state.to(dtype).reshape(inputs.state.shape)
    )
    if cu_seqlens is None:
        grads = _run_back(grad_y, grad_state, inputs)
    else:
        packing = Packing.of(cu_seqlens, x.shape[1])
        grads = _run_back(packing.pad(grad_y), grad_state, inputs.pad(packing)).cut(packing)
    grad_dt = steps.backward(grads.dt.flatten(2) + grads.log_decay.flatten(2) * A.to(dtype))
    given = (x, dt, A, B, C, D, dt_bias, initial_state)
    found = (
        grads.x,
        grad_dt,
        (grads.log_decay * inputs.dt).flatten(2).sum_to_size(A.shape),
        grads.B,
        grads.C,
        grads.D,
        None if dt_bias is None else grad_dt.sum((0, 1)),
        grads.state,
    )
    return tuple(
        x.new_empty(0)
        if like is None or grad is None
        else grad.reshape(like.shape).to(like.dtype).contiguous()
        for grad, like in zip(found, given, strict=True)
    )


class _Steps(NamedTuple):
    """Step sizes (B, L, H) on their way from those given to those used."""

    biased: Tensor
    positive: Tensor | None  # after softplus, where there is one
    limited: Tensor
    limit: Sequence[float] | None

    @classmethod
    def of(cls, dt: Tensor, bias: Tensor | None, limit: Sequence[float] | None, *, softplus: bool) -> _Steps:
        biased = dt if bias is None else dt + bias.to(dt.dtype)
        positive = F.softplus(biased, *_SOFTPLUS) if softplus else None
        free = biased if positive is None else positive
        return cls(biased, positive, free if limit is None else free.clamp(*limit), limit)

    def backward(self, grad: Tensor) -> Tensor:
        """Return the gradient of the steps before bias, given that of those used."""
        if self.limit is not None:
            free = self.biased if self.positive is None else self.positive
            grad = grad * ((free >= self.limit[0]) & (free <= self.limit[1]))
        if self.positive is not None:
            grad = torch.ops.aten.softplus_backward(grad, self.biased, *_SOFTPLUS)
        return grad


class _Inputs(NamedTuple):
    """What the recurrence runs on: H heads as G groups of K, in one dtype but x, which may be narrower."""

    x: Tensor  # (B, L, G, K, P)
    dt: Tensor  # (B, L, G, K)
    log_decay: Tensor  # (B, L, G, K), dt A
    B: Tensor  # (B, L, G, N)
    C: Tensor  # (B, L, G, N)
    D: Tensor | None  # (G, K, 1, P), or (G, K, 1, 1)
    state: Tensor  # (B, G, K, P, N), or (n, G, K, P, N) of n packed sequences

    @classmethod
    def of(
        cls,
        x: Tensor,
        dt: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        state: Tensor | None,
        *,
        rows: int,
    ) -> _Inputs:
        heads = (B.shape[2], x.shape[2] // B.shape[2])
        state = dt.new_zeros(rows, *x.shape[2:], B.shape[3]) if state is None else state
        return cls(
            x=torch.unflatten(x, 2, heads),
            dt=torch.unflatten(dt, 2, heads),
            log_decay=torch.unflatten(dt * A.to(dt.dtype), 2, heads),
            B=B.to(dt.dtype),
            C=C.to(dt.dtype),
            D=None if D is None else D.to(dt.dtype).reshape(*heads, 1, -1),
            state=torch.unflatten(state.to(dt.dtype), 1, heads),
        )

    def pad(self, packing: Packing) -> _Inputs:
        """Lay packed sequences out as a batch. A step of zero keeps the state as it is."""
        x, dt, log_decay, B, C = (packing.pad(tensor) for tensor in self[:5])
        return self._replace(x=x, dt=dt, log_decay=log_decay, B=B, C=C)

    def spans(self) -> list[slice]:
        """Return where in time each chunk lies."""
        return [slice(start, start + CHUNK) for start in range(0, self.x.shape[1], CHUNK)]

    def chunk(self, at: slice) -> Chunk:
        return Chunk.cut(*(tensor[:, at] for tensor in self[:5]))


class _Gradients(NamedTuple):
    """Gradients of the inputs, each in its shape."""

    x: Tensor
    dt: Tensor  # where it multiplies x
    log_decay: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    state: Tensor

    def cut(self, packing: Packing) -> _Gradients:
        """Take a batch back into one row."""
        x, dt, log_decay, B, C = (packing.cut(tensor) for tensor in self[:5])
        return self._replace(x=x, dt=dt, log_decay=log_decay, B=B, C=C)


def _run(inputs: _Inputs) -> tuple[Tensor, Tensor]:
    """Return y (B, L, G, K, P) in the dtype of x, and the last state, which shares no memory."""
    y = torch.empty_like(inputs.x, memory_format=torch.contiguous_format)
    spans, state = inputs.spans(), inputs.state
    for at in spans:
        chunk = inputs.chunk(at)
        outputs = chunk.outputs(state)
        if inputs.D is not None:
            outputs.addcmul_(by_head(inputs.x[:, at]), inputs.D)
        y[:, at] = by_token(outputs)
        state = chunk.advance(state)
    return y, state if spans else state.clone(memory_format=torch.contiguous_format)


def _run_back(grad_y: Tensor, grad_state: Tensor, inputs: _Inputs) -> _Gradients:
    """Return the gradients, given those of y and the last state.

    The state before each chunk is made anew, and kept until the chunk's turn comes.
    """
    x, dt, _, _, _, D, state = inputs
    spans, states = inputs.spans(), [state]
    for at in spans[:-1]:
        states.append(inputs.chunk(at).advance(states[-1]))
    grad_x, grad_dt, grad_log_decay, grad_B, grad_C = (
        torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in inputs[:5]
    )
    grad_D = None if D is None else torch.zeros_like(D)
    for i in reversed(range(len(spans))):
        at = spans[i]
        grad = by_head(grad_y[:, at]).to(dt.dtype).contiguous()
        chunk = inputs.chunk(at).backward(grad, grad_state, states[i])
        grad_state = chunk.state
        u, step = by_head(x[:, at]), by_head(dt[:, at])
        grad_dt[:, at] = by_token((chunk.u * u).sum(-1))
        grad_log_decay[:, at] = by_token(chunk.log_decay)
        grad_u = chunk.u * step.unsqueeze(-1)
        if D is not None and grad_D is not None:
            grad_u.addcmul_(grad, D)
            grad_D += (grad * u).sum_to_size(D.shape)
        grad_x[:, at] = by_token(grad_u)
        grad_B[:, at], grad_C[:, at] = chunk.B.transpose(1, 2), chunk.C.transpose(1, 2)
    return _Gradients(grad_x, grad_dt, grad_log_decay, grad_B, grad_C, grad_D, grad_state)
