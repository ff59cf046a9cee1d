"""The short causal convolution without a transposition, with its gradient written by hand."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; packed rows are left to the reference."""
    if cu_seqlens is not None:
        return NotImplemented
    padded, taps, offset = _widen(x, weight, bias, initial_state)
    y = _convolve(padded, taps, offset)
    final_state = padded[:, x.shape[1] :].to(x.dtype, copy=True, memory_format=torch.contiguous_format)
    return (F.silu(y, inplace=True) if silu else y).to(x.dtype), final_state


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
    """Compute the op's gradient as its contract says; packed rows are left to the reference."""
    if cu_seqlens is not None:
        return NotImplemented
    padded, taps, offset = _widen(x, weight, bias, initial_state)
    width, seq_len = taps.shape[1], x.shape[1]
    grad = torch.zeros_like(padded[:, width - 1 :]) if grad_y is None else grad_y.to(padded.dtype)
    if silu:
        grad = torch.ops.aten.silu_backward(grad, _convolve(padded, taps, offset))
    grad_padded = torch.zeros_like(padded)
    if grad_final_state is not None:
        grad_padded[:, seq_len:] = grad_final_state
    grad_weight = torch.empty_like(taps)
    for k in range(width):
        grad_padded[:, k : k + seq_len].addcmul_(grad, taps[:, k])
        grad_weight[:, k] = (grad * padded[:, k : k + seq_len]).sum((0, 1))
    nothing = x.new_empty(0)
    return (
        grad_padded[:, width - 1 :].to(x.dtype).contiguous(),
        grad_weight.to(weight.dtype),
        nothing if bias is None else grad.sum((0, 1)).to(bias.dtype),
        nothing
        if initial_state is None
        else grad_padded[:, : width - 1].to(
            initial_state.dtype, copy=True, memory_format=torch.contiguous_format
        ),
    )


def _widen(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return the inputs with those before them (B, K-1+L, D), the taps and the bias, in one dtype."""
    dtype = compute_dtype(x, weight, bias, initial_state)
    before = (
        x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[2]) if initial_state is None else initial_state
    )
    padded = torch.cat([before.to(dtype), x.to(dtype)], dim=1)
    return padded, weight.to(dtype).contiguous(), None if bias is None else bias.to(dtype)


def _convolve(padded: Tensor, taps: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution (B, L, D) before the activation."""
    d_model, width = taps.shape
    seq_len = padded.shape[1] - width + 1
    if padded.is_cpu and padded.dtype == torch.float32 and seq_len:
        # (B, L, D) is the channels-last layout of an image (B, D, 1, L), which needs no transposition.
        image = padded.transpose(1, 2).unsqueeze(2)
        rows = F.conv2d(image, taps.view(d_model, 1, 1, width), bias, groups=d_model)
        return rows.squeeze(2).transpose(1, 2).contiguous()
    y = (
        padded.new_zeros(padded.shape[0], seq_len, d_model)
        if bias is None
        else bias.repeat(padded.shape[0], seq_len, 1)
    )
    for k in range(width):
        y.addcmul_(padded[:, k : k + seq_len], taps[:, k])
    return y
