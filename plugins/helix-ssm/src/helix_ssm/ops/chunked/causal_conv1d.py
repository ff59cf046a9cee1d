"""The short causal convolution without a transposition, with its gradient written by hand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from helix_ssm.ops._check import compute_dtype, n_states, segments


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Compute the op as its contract says."""
    args = _Arguments.widen(x, weight, bias, initial_state, cu_seqlens)
    y = _convolve(args.padded, args.taps, args.bias)
    y = F.silu(y, inplace=True) if silu else y
    if args.rows is not None:
        return args.rows.outputs(y).to(x.dtype), args.rows.last(args.padded).to(x.dtype)
    final_state = args.padded[:, x.shape[1] :]
    return y.to(x.dtype), final_state.to(x.dtype, copy=True, memory_format=torch.contiguous_format)


def causal_conv1d_backward(
    grad_y: Tensor | None,
    grad_final_state: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the op's gradient as its contract says."""
    args = _Arguments.widen(x, weight, bias, initial_state, cu_seqlens)
    padded, taps = args.padded, args.taps
    width, n_outputs = taps.shape[1], padded.shape[1] - taps.shape[1] + 1
    grad = padded.new_zeros(x.shape) if grad_y is None else grad_y.to(padded.dtype)
    grad = grad if args.rows is None else args.rows.spread(grad, n_outputs)
    if silu:
        grad = torch.ops.aten.silu_backward(grad, _convolve(padded, taps, args.bias))
    grad_padded = torch.zeros_like(padded)
    grad_weight = torch.empty_like(taps)
    for k in range(width):
        grad_padded[:, k : k + n_outputs].addcmul_(grad, taps[:, k])
        grad_weight[:, k] = (grad * padded[:, k : k + n_outputs]).sum((0, 1))
    grad_state, grad_x = args.split(grad_padded, grad_final_state)
    nothing = x.new_empty(0)
    return (
        grad_x.to(x.dtype).contiguous(),
        grad_weight.to(weight.dtype),
        nothing if bias is None else grad.sum((0, 1)).to(bias.dtype),
        nothing
        if initial_state is None
        else grad_state.to(initial_state.dtype, copy=True, memory_format=torch.contiguous_format),
    )


class _Rows(NamedTuple):
    """Where n sequences lie in one row, each behind the K-1 inputs that came before it.

    The row convolves as one sequence. Its outputs that mix two sequences go unused.

    Attributes:
        states: Places of the inputs before each sequence (n, K-1).
        tokens: Places of the tokens (T,).
        ends: Places of the last K-1 inputs of each sequence (n, K-1).
    """

    states: Tensor
    tokens: Tensor
    ends: Tensor

    @classmethod
    def of(cls, cu_seqlens: Tensor, seq_len: int, n_before: int) -> _Rows:
        segments(cu_seqlens, seq_len)
        bounds, device = cu_seqlens.long(), cu_seqlens.device
        shifts = torch.arange(len(bounds), device=device) * n_before
        before = torch.arange(n_before, device=device)
        own = shifts[1:].repeat_interleave(bounds.diff(), output_size=seq_len)
        return cls(
            states=(bounds + shifts)[:-1, None] + before,
            tokens=own + torch.arange(seq_len, device=device),
            ends=(bounds[1:] + shifts[:-1])[:, None] + before,
        )

    def join(self, states: Tensor, x: Tensor) -> Tensor:
        """Lay states (n, K-1, D) and tokens (1, T, D) into one row (1, n (K-1) + T, D)."""
        row = x.new_empty(self.states.numel() + x.shape[1], x.shape[2])
        row[self.states] = states
        row[self.tokens] = x[0]
        return row.unsqueeze(0)

    def last(self, row: Tensor) -> Tensor:
        """Return the last K-1 inputs of each sequence (n, K-1, D)."""
        return row[0, self.ends]

    def outputs(self, y: Tensor) -> Tensor:
        """Return the outputs of the tokens (1, T, D) among those of the row."""
        return y[:, self._outputs()]

    def spread(self, grad: Tensor, n_outputs: int) -> Tensor:
        """Lay the gradients of the tokens' outputs out as those of the row's, zero for the unused."""
        row = grad.new_zeros(1, n_outputs, grad.shape[2])
        row[:, self._outputs()] = grad
        return row

    def _outputs(self) -> Tensor:
        """Return the places of the tokens among the outputs, of which the row has K-1 fewer than inputs."""
        return self.tokens - self.states.shape[1]


class _Arguments(NamedTuple):
    """Arguments of the op in one dtype, with the inputs behind those that came before them."""

    padded: Tensor  # (B, K-1+L, D), or (1, n (K-1) + T, D) of n packed sequences
    taps: Tensor  # (D, K)
    bias: Tensor | None  # (D,)
    rows: _Rows | None

    @classmethod
    def widen(
        cls,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial_state: Tensor | None,
        cu_seqlens: Tensor | None,
    ) -> _Arguments:
        dtype = compute_dtype(x, weight, bias, initial_state)
        n_before = weight.shape[1] - 1
        zeros = x.new_zeros(n_states(cu_seqlens, x.shape[0]), n_before, x.shape[2])
        before = zeros if initial_state is None else initial_state
        rows = None if cu_seqlens is None else _Rows.of(cu_seqlens, x.shape[1], n_before)
        before, inputs = before.to(dtype), x.to(dtype)
        return cls(
            padded=torch.cat([before, inputs], dim=1) if rows is None else rows.join(before, inputs),
            taps=weight.to(dtype).contiguous(),
            bias=None if bias is None else bias.to(dtype),
            rows=rows,
        )

    def split(self, grad_padded: Tensor, grad_final_state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the gradients of the first state and of x, given those through y and the last state."""
        n_before = self.taps.shape[1] - 1
        if self.rows is None:
            if grad_final_state is not None:
                grad_padded[:, grad_padded.shape[1] - n_before :] += grad_final_state
            return grad_padded[:, :n_before], grad_padded[:, n_before:]
        if grad_final_state is not None:
            grad_padded[0, self.rows.ends] += grad_final_state
        return grad_padded[0, self.rows.states], grad_padded[:, self.rows.tokens]


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
