"""The elementwise linear recurrence, real or complex."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, bounds, code, common_dtype, dense, rows, serves
from helix_cpu.library import Kernel

_FORWARD = Kernel("diagonal_scan", "15q")
_BACKWARD = Kernel("diagonal_scan_backward", "20q")
_COMPLEX64 = 2
"""How the kernel is told of that dtype, beside those of `helix_cpu.arguments`."""


def diagonal_scan(a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> Any:
    """Compute the op as its contract says; not of float64 or complex128."""
    if not _serves(a, b, initial_state):
        return NotImplemented
    wide, dtype = _dtypes(a, b)
    batch_size, seq_len, d_model = b.shape
    packed = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if packed is None else len(packed) - 1
    constant = a.dim() == 1
    factors, inputs = dense(a, wide) if constant else rows(a, dtype), rows(b, dtype)
    state = None if initial_state is None else dense(initial_state, wide)
    # Sizes one by one: PyTorch takes twice as long to read a torch.Size.
    h = torch.empty(batch_size, seq_len, d_model, dtype=dtype)
    final_state = torch.empty(n_sequences, d_model, dtype=wide)
    _FORWARD(
        factors.data_ptr(),
        inputs.data_ptr(),
        address(state),
        address(packed),
        h.data_ptr(),
        final_state.data_ptr(),
        n_sequences,
        seq_len,
        d_model,
        _code(dtype),
        constant,
        *((0, 0) if constant else factors.stride()[:2]),
        *inputs.stride()[:2],
    )
    return (h if dtype is b.dtype else h.to(b.dtype)), final_state


def diagonal_scan_backward(
    grad_h: Tensor | None,
    grad_final_state: Tensor | None,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; not of float64 or complex128."""
    if not _serves(a, b, initial_state):
        return NotImplemented
    wide, dtype = _dtypes(a, b)
    batch_size, seq_len, d_model = b.shape
    packed = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if packed is None else len(packed) - 1
    constant = a.dim() == 1
    factors, inputs = dense(a, wide) if constant else rows(a, dtype), rows(b, dtype)
    state = None if initial_state is None else dense(initial_state, wide)
    grad = None if grad_h is None else rows(grad_h, dtype)
    grad_final = None if grad_final_state is None else dense(grad_final_state, wide)
    grad_a, grad_b = torch.empty(a.shape, dtype=factors.dtype), torch.empty(b.shape, dtype=dtype)
    grad_state = torch.empty(n_sequences, d_model, dtype=wide)
    _BACKWARD(
        factors.data_ptr(),
        inputs.data_ptr(),
        address(state),
        address(packed),
        address(grad),
        address(grad_final),
        grad_a.data_ptr(),
        grad_b.data_ptr(),
        grad_state.data_ptr(),
        n_sequences,
        seq_len,
        d_model,
        _code(dtype),
        constant,
        *((0, 0) if constant else factors.stride()[:2]),
        *inputs.stride()[:2],
        *((0, 0) if grad is None else grad.stride()[:2]),
    )
    return as_given((grad_a, grad_b, grad_state), (a, b, initial_state))


def _serves(a: Tensor, b: Tensor, initial_state: Tensor | None) -> bool:
    if not b.is_complex():
        return serves(a, b, initial_state)
    return all(tensor is None or tensor.dtype is torch.complex64 for tensor in (a, b, initial_state))


def _dtypes(a: Tensor, b: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Return the dtype of states and of a factor (D,), and that of tensors (B, L, D)."""
    if b.is_complex():
        return torch.complex64, torch.complex64
    return torch.float32, common_dtype(b) if a.dim() == 1 else common_dtype(a, b)


def _code(dtype: torch.dtype) -> int:
    return _COMPLEX64 if dtype is torch.complex64 else code(dtype)
