"""State-space duality: the recurrence of Mamba-2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import ssd_scan as kernels
from helix_cuda.kernels import ssd_scan_backward as backward_kernels
from helix_cuda.kernels import ssd_steps
from helix_cuda.ops._ssd import Call, Steps, skip_strides

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOST_STATES = 512
"""States N of a head that a program's registers hold; with more, the op is left to another backend."""
_MOST_CHANNELS = 1024
"""Channels P of a head, whose blocks the gradient's kernel takes one by one in code of their own."""
_PROGRAMS = 1024
"""Programs of the gradient's kernel, for which the heads of a group are split where chunks are few."""


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
    """Compute the op as its contract says; not of float64, nor of over 512 states or 1,024 channels."""
    if not _serves(x, dt, A, B, C, D, dt_bias, initial_state):
        return NotImplemented
    steps = _steps(dt, A, dt_bias, dt_limit, softplus=dt_softplus)
    if x.shape[1] == 1 and cu_seqlens is None and x.numel():
        return _one_step(x, steps, B, C, D, initial_state)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    n_sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    initial = _wide(initial_state)
    if not x.numel():
        state = x.new_zeros(n_sequences, *x.shape[2:], B.shape[3], dtype=torch.float32)
        return y.zero_(), state if initial is None else state.copy_(initial)
    call = Call.of(x, steps, B, C, cu_seqlens, _common_dtype(x, B, C))
    starts, final = call.starts(initial)
    ends = call.new_states(n_sequences) if final is None else final
    (x_rows, x_stride), (B_rows, b_stride), (C_rows, c_stride) = rows(call.x), rows(call.B), rows(call.C)
    outputs = kernels.outputs_of_float32 if call.fine else kernels.outputs
    outputs[call.walk_grid](
        x_rows,
        B_rows,
        C_rows,
        y if D is None else D.contiguous(),
        call.kept,
        ends if starts is None else starts,
        y,
        ends,
        *call.places,
        *call.shape,
        x_stride,
        b_stride,
        c_stride,
        *skip_strides(D),
        *call.segments,
        HAS_START=starts is not None,
        HAS_SKIP=D is not None,
        HAS_END=final is None,
        **call.products("T", "BN"),
    )
    return y, ends


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
) -> Any:
    """Compute the op's gradient as its contract says; declines what the op does."""
    if not _serves(x, dt, A, B, C, D, dt_bias, initial_state):
        return NotImplemented
    given = (x, dt, A, B, C, D, dt_bias, initial_state)
    if not x.numel():
        grads = [None if tensor is None else torch.zeros_like(tensor) for tensor in given[:-1]]
        through = grad_final_state
        if initial_state is not None and through is None:
            through = torch.zeros_like(initial_state)
        return as_given((*grads, through), given)
    steps = _steps(dt, A, dt_bias, dt_limit, softplus=dt_softplus)
    dtype = _common_dtype(x, B, C)
    call = Call.of(x, steps, B, C, cu_seqlens, dtype)
    grad_y = x.new_zeros(x.shape, dtype=dtype) if grad_y is None else grad_y.to(dtype)
    grad_y = grad_y.flatten(2)
    states = call.states(_wide(initial_state))
    grad_states, grad_initial = call.grad_states(grad_y, _wide(grad_final_state))
    n_programs = call.chunks.n_slots * call.n_groups * _splits(call)[0]
    parts = _Parts.of(call, n_programs, has_skip=D is not None)
    grad_x = _of_inputs(call, x, D, grad_y, grad_states, parts)
    grad_B, grad_C = _of_projections(call, grad_y, states, grad_states, parts)
    grad_dt, grad_A, grad_bias = _of_steps(call, parts)
    grad_D = None if D is None else parts.skips.sum(0) if D.dim() == 2 else parts.skips.sum((0, 2))
    return as_given((grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_bias, grad_initial), given)


class _Parts(NamedTuple):
    """What the kernels of the gradient leave to be added up."""

    grad_sizes: Tensor  # (H, tokens)
    changes: Tensor  # (H, tokens)
    entries: Tensor  # (H, tokens)
    leaves: Tensor  # (H, tokens)
    lefts: Tensor  # (H, tokens)
    kepts: Tensor  # (slots, H)
    skips: Tensor  # (slots, H, P), where there are skip weights
    scores: Tensor  # (programs, T, T)
    of_inputs: Tensor  # (programs, N, T)
    of_outputs: Tensor  # (programs, N, T)

    @classmethod
    def of(cls, call: Call, n_programs: int, *, has_skip: bool) -> _Parts:
        T, _, N = call.blocks
        n_slots, heads = call.chunks.n_slots, (call.n_heads, call.kept.shape[1])
        shapes = (*[heads] * 5, (n_slots, call.n_heads))
        skips = (n_slots if has_skip else 0, call.n_heads, call.head_dim)
        of_programs = ((n_programs, T, T), (n_programs, N, T), (n_programs, N, T))
        return cls(*(call.kept.new_empty(shape) for shape in (*shapes, skips, *of_programs)))


def _splits(call: Call) -> tuple[int, int]:
    """Return into how many parts the heads of a group are split, and how many heads a part has."""
    per_group = call.n_heads // call.n_groups
    wanted = triton.cdiv(_PROGRAMS, call.chunks.n_slots * call.n_groups)
    heads = triton.cdiv(per_group, min(wanted, per_group))
    return triton.cdiv(per_group, heads), heads


def _of_inputs(
    call: Call, x: Tensor, D: Tensor | None, grad_y: Tensor, after: Tensor, parts: _Parts
) -> Tensor:
    """Return the gradient of x."""
    (x_rows, x_stride), (B, b_stride), (C, c_stride) = rows(call.x), rows(call.B), rows(call.C)
    grad_rows, grad_stride = rows(grad_y)
    strides = grad_stride, x_stride, b_stride, c_stride
    sizes = {"P_BLOCKS": call.n_blocks, **call.products("T", "BP", "BN")}
    kernel = backward_kernels.pairs_of_float32 if call.fine else backward_kernels.pairs
    kernel[(parts.scores.shape[0],)](
        grad_rows,
        x_rows,
        B,
        C,
        call.kept,
        parts.grad_sizes,
        parts.changes,
        parts.scores,
        *call.chunk_places,
        *call.shape,
        *strides,
        *_splits(call),
        **sizes,
    )
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    kernel = backward_kernels.inputs_of_float32 if call.fine else backward_kernels.inputs
    kernel[(parts.scores.shape[0],)](
        grad_rows,
        x_rows,
        B,
        C,
        x_rows if D is None else D.contiguous(),
        call.kept,
        after,
        grad_x,
        parts.leaves,
        parts.lefts,
        parts.skips,
        *call.chunk_places,
        *call.shape,
        *strides,
        *skip_strides(D),
        *_splits(call),
        HAS_SKIP=D is not None,
        **sizes,
    )
    return grad_x


def _of_projections(
    call: Call, grad_y: Tensor, before: Tensor, after: Tensor, parts: _Parts
) -> tuple[Tensor, Tensor]:
    """Return the gradients of B and C."""
    (x, x_stride), (B, b_stride), (C, c_stride) = rows(call.x), rows(call.B), rows(call.C)
    grad_rows, grad_stride = rows(grad_y)
    n_splits, heads = _splits(call)
    backward_kernels.projections[(parts.of_inputs.shape[0],)](
        grad_rows,
        x,
        C,
        call.kept,
        before,
        after,
        parts.entries,
        parts.kepts,
        parts.of_inputs,
        parts.of_outputs,
        *call.chunk_places,
        *call.shape,
        grad_stride,
        x_stride,
        c_stride,
        n_splits,
        heads,
        P_BLOCKS=call.n_blocks,
        **call.products("T", "BP", "BN"),
    )
    grad_B, grad_C = (call.x.new_empty(call.B.shape, dtype=torch.float32) for _ in range(2))
    backward_kernels.collect[(call.chunks.n_slots * call.n_groups,)](
        B,
        C,
        parts.scores,
        parts.of_inputs,
        parts.of_outputs,
        grad_B,
        grad_C,
        *call.chunk_places[:3],
        call.n_groups,
        call.d_state,
        b_stride,
        c_stride,
        n_splits,
        **call.constants("T", "BN"),
    )
    return grad_B, grad_C


def _of_steps(call: Call, parts: _Parts) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the gradients of dt, A and the bias."""
    dt, A, bias, *_ = call.steps
    grad_dt = dt.new_empty(dt.shape, dtype=torch.float32)
    sums = grad_dt.new_empty(2, call.chunks.n_slots, call.n_heads)
    grad_A = torch.empty_like(grad_dt) if A.dim() == 3 else sums[0]
    ssd_steps.sums_backward[call.steps_grid](
        *call.given_steps,
        *parts[:6],
        grad_dt,
        grad_A,
        sums[1],
        *call.step_sizes,
        **call.step_constants,
    )
    return grad_dt, grad_A if A.dim() == 3 else grad_A.sum(0), None if bias is None else sums[1].sum(0)


def _one_step(
    x: Tensor, steps: Steps, B: Tensor, C: Tensor, D: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Run one token of each row, in one launch."""
    batch_size, _, n_heads, head_dim = x.shape
    n_groups, d_state = B.shape[2:]
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    final = x.new_empty(batch_size, n_heads, head_dim, d_state, dtype=torch.float32)
    (x_rows, x_stride), (B_rows, b_stride), (C_rows, c_stride) = (rows(t.flatten(2)) for t in (x, B, C))
    dt, A, bias, *_ = steps
    states = triton.next_power_of_2(d_state)
    channels = min(triton.next_power_of_2(head_dim), max(4096 // states, 1))
    kernels.one_step[(batch_size * n_heads * triton.cdiv(head_dim, channels),)](
        x_rows,
        dt,
        A,
        B_rows,
        C_rows,
        y if D is None else D.contiguous(),
        dt if bias is None else bias,
        final if initial_state is None else initial_state.contiguous(),
        y,
        final,
        n_heads,
        n_heads // n_groups,
        head_dim,
        d_state,
        x_stride,
        rows(dt)[1],
        rows(A)[1] if A.dim() == 3 else 0,
        b_stride,
        c_stride,
        *skip_strides(D),
        *steps.limits,
        **steps.flags,
        HAS_SKIP=D is not None,
        HAS_INITIAL=initial_state is not None,
        BP=channels,
        BN=states,
    )
    return y, final


def _serves(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, *rest: Tensor | None) -> bool:
    fits = 0 < B.shape[3] <= _MOST_STATES and x.shape[3] <= _MOST_CHANNELS
    return fits and serves(x, dt, A, B, C, *rest)


def _steps(
    dt: Tensor, A: Tensor, bias: Tensor | None, limit: Sequence[float] | None, *, softplus: bool
) -> Steps:
    A = rows(A)[0] if A.dim() == 3 else A.contiguous()
    return Steps(rows(dt)[0], A, None if bias is None else bias.contiguous(), softplus, limit)


def _common_dtype(*tensors: Tensor) -> torch.dtype:
    """Return the dtype of the products: the one that all have, else float32."""
    dtypes = {tensor.dtype for tensor in tensors}
    return dtypes.pop() if len(dtypes) == 1 else torch.float32


def _wide(state: Tensor | None) -> Tensor | None:
    return None if state is None else state.to(torch.float32).contiguous()
