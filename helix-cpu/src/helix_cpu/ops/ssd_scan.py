"""State-space duality: the recurrence of Mamba-2."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, bounds, code, common_dtype, dense, rows, serves
from helix_cpu.library import Kernel
from helix_cpu.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Sequence

_FORWARD = Kernel("ssd_scan", "34q2d")
_BACKWARD = Kernel("ssd_scan_backward", "42q2d")
_REPEATS = Repeats(_FORWARD)


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
    """Compute the op as its contract says; not of float64."""
    args = (x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, initial_state, cu_seqlens)
    repeated = _REPEATS.run(args)
    if repeated is not None:
        return repeated
    if not serves(x, dt, A, B, C, D, dt_bias, initial_state):
        return NotImplemented
    inputs = _inputs(x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, initial_state, cu_seqlens)
    y = torch.empty(x.shape, dtype=inputs.dtype)
    final_state = torch.empty(inputs.n_sequences, *x.shape[2:], B.shape[3], dtype=torch.float32)
    _FORWARD(y.data_ptr(), final_state.data_ptr(), *inputs.packed)
    results = y if inputs.dtype is x.dtype else y.to(x.dtype), final_state
    if x.shape[1] == 1 and cu_seqlens is None:
        numbers = inputs.packed[len(inputs.tensors) :]
        _REPEATS.remember(args, (y, final_state, *inputs.tensors, *numbers), results)
    return results


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
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(x, dt, A, B, C, D, dt_bias, initial_state):
        return NotImplemented
    inputs = _inputs(x, dt, A, B, C, D, dt_bias, dt_softplus, dt_limit, initial_state, cu_seqlens)
    n_sequences, dtype = inputs.n_sequences, inputs.dtype
    n_heads, head_dim = x.shape[2:]
    grad_outputs = x.new_zeros(x.shape, dtype=dtype) if grad_y is None else dense(grad_y, dtype)
    grad_last = _dense(grad_final_state)
    grad_x, grad_B, grad_C = (torch.empty(like.shape, dtype=dtype) for like in (x, B, C))
    grad_dt = torch.empty(dt.shape, dtype=torch.float32)
    grad_A = torch.empty(dt.shape if A.dim() == 3 else (n_sequences, n_heads), dtype=torch.float32)
    grad_D = torch.empty(n_sequences, n_heads, head_dim, dtype=torch.float32)
    grad_bias = torch.empty(n_sequences, n_heads, dtype=torch.float32)
    grad_state = torch.empty(n_sequences, n_heads, head_dim, B.shape[3], dtype=torch.float32)
    _BACKWARD(
        grad_outputs.data_ptr(),
        address(grad_last),
        grad_x.data_ptr(),
        grad_dt.data_ptr(),
        grad_A.data_ptr(),
        grad_B.data_ptr(),
        grad_C.data_ptr(),
        grad_D.data_ptr(),
        grad_bias.data_ptr(),
        grad_state.data_ptr(),
        *inputs.packed,
    )
    grads = (
        grad_x,
        grad_dt,
        grad_A if A.dim() == 3 else grad_A.sum(0),
        grad_B,
        grad_C,
        None if D is None else grad_D.sum(0) if D.dim() == 2 else grad_D.sum(0).sum(1),
        grad_bias.sum(0),
        grad_state,
    )
    return as_given(grads, (x, dt, A, B, C, D, dt_bias, initial_state))


class _Inputs(NamedTuple):
    """A call's arguments as the kernels take them."""

    dtype: torch.dtype  # of x, B and C
    n_sequences: int
    packed: tuple[float, ...]
    tensors: tuple[Tensor | None, ...]  # whose addresses `packed` begins with


def _inputs(
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
) -> _Inputs:
    batch_size, seq_len, n_heads, head_dim = x.shape
    dtype = common_dtype(x, B, C)
    x, B, C, dt = rows(x, dtype), rows(B, dtype), rows(C, dtype), rows(dt)
    D_has_channels = D is not None and D.dim() == 2
    if A.dim() == 3:
        A = rows(A)
        rate_strides = A.stride()[:2]
    else:
        A, rate_strides = dense(A), (0, 0)
    D, dt_bias, initial_state = (_dense(tensor) for tensor in (D, dt_bias, initial_state))
    limits = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if limits is None else limits.shape[0] - 1
    tensors = (x, B, C, dt, A, D, dt_bias, initial_state, limits)
    packed = (
        *map(address, tensors),
        n_sequences,
        seq_len,
        n_heads,
        B.shape[2],
        head_dim,
        B.shape[3],
        *x.stride()[:3],
        *B.stride()[:3],
        *C.stride()[:3],
        *dt.stride()[:2],
        *rate_strides,
        A.dim() == 3,
        D_has_channels,
        code(dtype),
        dt_softplus,
        *((-math.inf, math.inf) if dt_limit is None else dt_limit),
    )
    return _Inputs(dtype, n_sequences, packed, tensors)


def _dense(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else dense(tensor)
