"""Short causal convolution, with SiLU after it, and the state that streaming needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from helix_cpu.arguments import address, as_given, bounds, code, common_dtype, dense, rows, serves
from helix_cpu.library import Kernel
from helix_cpu.repeats import Repeats

_FORWARD = Kernel("causal_conv1d", "15q")
_BACKWARD = Kernel("causal_conv1d_backward", "21q")
_REPEATS = Repeats(_FORWARD)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64."""
    args = (x, weight, bias, silu, initial_state, cu_seqlens)
    repeated = _REPEATS.run(args)
    if repeated is not None:
        return repeated
    if not serves(x, weight, bias, initial_state):
        return NotImplemented
    dtype = common_dtype(x, initial_state)
    batch_size, seq_len, d_model = x.shape
    width = weight.shape[1]
    packed = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    n_sequences = batch_size if packed is None else len(packed) - 1
    inputs, taps = rows(x, dtype), dense(weight)
    shift = None if bias is None else dense(bias)
    state = None if initial_state is None else dense(initial_state, dtype)
    y = torch.empty(x.shape, dtype=dtype)
    final_state = torch.empty(n_sequences, width - 1, d_model, dtype=dtype)
    tensors = (inputs, taps, shift, state, packed, y, final_state)
    numbers = (n_sequences, seq_len, d_model, width, *inputs.stride()[:2], silu, code(dtype))
    _FORWARD(*map(address, tensors), *numbers)
    if dtype is not x.dtype:
        return y.to(x.dtype), final_state.to(x.dtype)
    if seq_len == 1 and cu_seqlens is None:
        _REPEATS.remember(args, (*tensors, *numbers), (y, final_state))
    return y, final_state


def causal_conv1d_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; not of float64."""
    if not serves(x, weight, bias, initial_state):
        return NotImplemented
    dtype = common_dtype(x, initial_state)
    seq_len, d_model = x.shape[1:]
    packed = None if cu_seqlens is None else bounds(cu_seqlens, seq_len)
    inputs, taps = rows(x, dtype), dense(weight)
    shift = None if bias is None else dense(bias)
    state = None if initial_state is None else dense(initial_state, dtype)
    grad = None if grad_y is None else rows(grad_y, dtype)
    grad_final = None if grad_final_state is None else dense(grad_final_state)
    grad_x, grad_weight = torch.empty(x.shape, dtype=dtype), torch.empty(weight.shape, dtype=torch.float32)
    grad_bias = torch.empty(d_model, dtype=torch.float32)
    grad_state = None if state is None else torch.empty_like(state)
    _BACKWARD(
        inputs.data_ptr(),
        taps.data_ptr(),
        address(shift),
        address(state),
        address(packed),
        address(grad),
        address(grad_final),
        grad_x.data_ptr(),
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
        address(grad_state),
        len(x) if packed is None else len(packed) - 1,
        seq_len,
        d_model,
        weight.shape[1],
        *inputs.stride()[:2],
        silu,
        code(dtype),
        *((0, 0) if grad is None else grad.stride()[:2]),
    )
    return as_given((grad_x, grad_weight, grad_bias, grad_state), (x, weight, bias, initial_state))
