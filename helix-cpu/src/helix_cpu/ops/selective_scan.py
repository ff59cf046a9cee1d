"""Selective scan: the recurrence of Mamba."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, bounds, code, common_dtype, dense, serves
from helix_cpu.library import Kernel
from helix_cpu.repeats import Repeats

_FORWARD = Kernel("selective_scan", "32q")
_BACKWARD = Kernel("selective_scan_backward", "41q")
_REPEATS = Repeats(_FORWARD)
STEPS = 16
"""Steps from one saved state to the next, as the op's contract and the kernel have it."""


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
) -> Any:
    """Compute the op as its contract says; not of float64."""
    args = (u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    repeated = _REPEATS.run(args)
    if repeated is not None:
        return repeated
    if not serves(u, delta, A, B, C, D, z, delta_bias, initial_state):
        return NotImplemented
    inputs = _inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    batch_size, seq_len, d_model = u.shape
    d_state, n_groups = A.shape[1], inputs.n_groups
    y = torch.empty_like(u, dtype=inputs.dtype, memory_format=torch.contiguous_format)
    final_state = torch.empty((inputs.n_sequences, d_model, d_state), dtype=torch.float32)
    n_saved = 0 if cu_seqlens is not None else max(seq_len - 1, 0) // STEPS
    states = torch.empty((n_saved, batch_size, n_groups, d_state, d_model // n_groups), dtype=torch.float32)
    _FORWARD(*inputs.packed, y.data_ptr(), final_state.data_ptr(), states.data_ptr() if n_saved else 0)
    results = y if inputs.dtype is u.dtype else y.to(u.dtype), final_state, states
    if seq_len == 1 and cu_seqlens is None:
        numbers = inputs.packed[len(inputs.tensors) :]
        _REPEATS.remember(args, (*inputs.tensors, *numbers, y, final_state, None), results)
    return results


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
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(u, delta, A, B, C, D, z, delta_bias, initial_state):
        return NotImplemented
    inputs = _inputs(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    grad_outputs = None if grad_y is None else dense(grad_y, inputs.dtype)
    grad_last = None if grad_final_state is None else dense(grad_final_state)
    grad_u, grad_delta = (torch.empty(u.shape, dtype=inputs.dtype) for _ in range(2))
    grad_z = None if z is None else torch.empty_like(grad_u)
    grad_A, grad_B, grad_C = (torch.empty(like.shape, dtype=torch.float32) for like in (A, B, C))
    grad_D, grad_bias = (torch.empty(u.shape[2], dtype=torch.float32) for _ in range(2))
    grad_state = torch.empty(inputs.n_sequences, *A.shape, dtype=torch.float32)
    saved = dense(states)
    _BACKWARD(
        *inputs.packed,
        address(grad_outputs),
        address(grad_last),
        saved.data_ptr(),
        grad_u.data_ptr(),
        grad_delta.data_ptr(),
        address(grad_z),
        grad_A.data_ptr(),
        grad_B.data_ptr(),
        grad_C.data_ptr(),
        grad_D.data_ptr(),
        grad_bias.data_ptr(),
        grad_state.data_ptr(),
    )
    grads = (grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_state)
    return as_given(grads, (u, delta, A, B, C, D, z, delta_bias, initial_state))


class _Inputs(NamedTuple):
    """A call's arguments as the kernels take them."""

    dtype: torch.dtype  # of u, delta, B, C and z
    n_sequences: int
    n_groups: int
    packed: tuple[int, ...]
    tensors: tuple[Tensor | None, ...]  # whose addresses `packed` begins with


def _inputs(
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
) -> _Inputs:
    dtype = common_dtype(u, delta, B, C, z)
    batch_size, seq_len, d_model = u.shape
    u, u_strides = _with_strides(u, dtype)
    delta, delta_strides = _with_strides(delta, dtype)
    z, z_strides = (None, (0, 0)) if z is None else _with_strides(z, dtype)
    B, B_strides = _with_strides(B, dtype)
    C, C_strides = _with_strides(C, dtype)
    A = dense(A)
    D = None if D is None else dense(D)
    delta_bias = None if delta_bias is None else dense(delta_bias)
    initial_state = None if initial_state is None else dense(initial_state)
    packed = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if packed is None else len(packed) - 1
    has_groups = len(B_strides) == 4
    n_groups = B.shape[2] if has_groups else 1
    arguments = (
        u.data_ptr(),
        delta.data_ptr(),
        B.data_ptr(),
        C.data_ptr(),
        0 if z is None else z.data_ptr(),
        A.data_ptr(),
        0 if D is None else D.data_ptr(),
        0 if delta_bias is None else delta_bias.data_ptr(),
        0 if initial_state is None else initial_state.data_ptr(),
        0 if packed is None else packed.data_ptr(),
        n_sequences,
        seq_len,
        d_model,
        A.shape[1],
        n_groups,
        u_strides[0],
        u_strides[1],
        delta_strides[0],
        delta_strides[1],
        z_strides[0],
        z_strides[1],
        B_strides[0],
        B_strides[1],
        B_strides[2] if has_groups else 0,
        C_strides[0],
        C_strides[1],
        C_strides[2] if has_groups else 0,
        delta_softplus,
        code(dtype),
    )
    kept = (u, delta, B, C, z, A, D, delta_bias, initial_state, packed)
    return _Inputs(dtype, n_sequences, n_groups, arguments, kept)


def _with_strides(tensor: Tensor, dtype: torch.dtype) -> tuple[Tensor, tuple[int, ...]]:
    """Return what `rows` does, and its strides: asking for them costs as much as the test that needs them."""
    if tensor.dtype is not dtype:
        tensor = tensor.to(dtype)
    strides = tensor.stride()
    if strides[-1] != 1 and tensor.shape[-1] > 1:
        tensor = tensor.contiguous()
        strides = tensor.stride()
    return tensor, strides
