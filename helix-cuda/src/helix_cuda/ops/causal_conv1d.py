"""Short causal convolution, with SiLU after it, and the state that streaming needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import causal_conv1d as kernels
from helix_cuda.kernels import causal_conv1d_wide as wide
from helix_cuda.kernels.causal_conv1d_backward import narrow
from helix_cuda.ops.chunks import cut

_NARROW = 4
"""Taps that kernels hold in registers; with more, each tap is read where it is used."""
_WORK = 1 << 19
"""Slots times channels: enough programs for a GPU, and few sums to add up; the same for every device."""
_SHORTEST = 32
"""Tokens of a slot at least."""
_STEP_CHANNELS = 256
_WIDE_TILE = {"TOKENS": 16, "CHANNELS": 128}


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - the op's schema
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op as its contract says; not of float64."""
    if not serves(x, weight, bias, initial_state):
        return NotImplemented
    n_sequences = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    final_state = x.new_empty(n_sequences, weight.shape[1] - 1, x.shape[2])
    if x.shape[1] == 1 and cu_seqlens is None:
        _step(y, final_state, x, weight, bias, silu, initial_state)
    elif n_sequences and x.shape[2]:
        _Call.of(x, weight, bias, initial_state, cu_seqlens).forward(y, final_state, silu)
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
    d_model, width = weight.shape
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    grad_state = _of_empty_sequences(grad_final_state, initial_state)
    total = torch.zeros(width + 1, d_model, dtype=torch.float32, device=x.device)
    if x.numel():
        call = _Call.of(x, weight, bias, initial_state, cu_seqlens)
        grad, grad_last = torch.zeros_like(x) if grad_y is None else grad_y, _contiguous(grad_final_state)
        backward = call.narrow if width <= _NARROW else call.wide
        total = backward(grad, grad_last, grad_x, grad_state, silu).sum(0)
    return as_given((grad_x, total[:width].t(), total[width], grad_state), (x, weight, bias, initial_state))


def _step(
    y: Tensor,
    final_state: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,  # noqa: FBT001 - passed on
    initial_state: Tensor | None,
) -> None:
    if not y.numel():
        return
    inputs, x_stride = rows(x)
    batch_size, _, d_model = x.shape
    kernels.step[(batch_size, triton.cdiv(d_model, _STEP_CHANNELS))](
        inputs,
        weight.contiguous(),
        x if bias is None else bias.contiguous(),
        x if initial_state is None else initial_state.contiguous(),
        y,
        final_state,
        d_model,
        x_stride,
        WIDTH=weight.shape[1],
        SILU=silu,
        BIASED=bias is not None,
        STATEFUL=initial_state is not None,
        CHANNELS=_STEP_CHANNELS,
        num_warps=2,
    )


class _Call(NamedTuple):
    """Arguments of the op as kernels take them, and its sequences cut into slots.

    Attributes:
        cu_seqlens: Bounds of packed sequences; any tensor where nothing is packed.
        owners: Sequence of each slot, int32; as above.
        bounds: As those of `helix_cuda.ops.chunks.Chunks`, like what follows.
    """

    x: Tensor
    x_stride: int
    weight: Tensor
    bias: Tensor | None
    state: Tensor | None
    cu_seqlens: Tensor
    owners: Tensor
    bounds: Tensor
    size: int
    n_slots: int
    n_sequences: int
    per_row: int
    packed: bool

    @classmethod
    def of(
        cls,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        initial_state: Tensor | None,
        cu_seqlens: Tensor | None,
    ) -> _Call:
        size = max(triton.next_power_of_2(triton.cdiv(x.numel() * weight.shape[1], 4 * _WORK)), _SHORTEST)
        slots = cut(x, size, cu_seqlens)
        bounds = owners = x
        if cu_seqlens is not None:
            bounds = slots.bounds
            owners = torch.searchsorted(cu_seqlens.long(), bounds[:-1], right=True, out_int32=True)
            owners = owners.sub_(1).clamp_(max=slots.n_sequences - 1)
        return cls(
            *rows(x),
            weight.contiguous(),
            _contiguous(bias),
            _contiguous(initial_state),
            x if cu_seqlens is None else cu_seqlens.contiguous(),
            owners,
            bounds,
            size,
            slots.n_slots,
            slots.n_sequences,
            slots.per_row,
            packed=cu_seqlens is not None,
        )

    def forward(
        self,
        y: Tensor,
        final_state: Tensor | None,
        silu: bool,  # noqa: FBT001 - passed on
        grad: Tensor | None = None,
    ) -> None:
        """Write y and the final state, or, with the gradient of y, the gradient before SiLU instead of y."""
        d_model, width = self.weight.shape
        n_programs = self.n_slots + (0 if final_state is None else self.n_sequences)
        grad_rows, grad_stride = (self.x, self.x_stride) if grad is None else rows(grad)
        kernels.forward[lambda meta: (n_programs * triton.cdiv(d_model, meta["CHANNELS"]),)](
            self.x,
            self.weight,
            self.x if self.bias is None else self.bias,
            self.x if self.state is None else self.state,
            grad_rows,
            y,
            y if final_state is None else final_state,
            self.bounds,
            self.owners,
            self.cu_seqlens,
            self.per_row,
            self.x.shape[1],
            self.n_slots,
            d_model,
            self.x_stride,
            grad_stride,
            TAPS=triton.next_power_of_2(width) if width <= _NARROW else 0,
            SILU=silu,
            BIASED=self.bias is not None,
            SLOPE=grad is not None,
            **self._constants(),
        )

    def narrow(
        self,
        grad: Tensor,
        grad_last: Tensor | None,
        grad_x: Tensor,
        grad_state: Tensor | None,
        silu: bool,  # noqa: FBT001 - passed on
    ) -> Tensor:
        """Write the gradients of x and the state; return the parts of those of taps and bias, a slot each."""
        d_model, width = self.weight.shape
        sums = self.x.new_empty(self.n_slots, width + 1, d_model, dtype=torch.float32)
        grad, grad_stride = rows(grad)
        narrow[lambda meta: (self.n_slots * triton.cdiv(d_model, meta["CHANNELS"]),)](
            self.x,
            self.weight,
            self.x if self.bias is None else self.bias,
            self.x if self.state is None else self.state,
            grad,
            grad if grad_last is None else grad_last,
            grad_x,
            grad_x if grad_state is None else grad_state,
            sums,
            self.bounds,
            self.owners,
            self.cu_seqlens,
            self.per_row,
            self.x.shape[1],
            d_model,
            self.x_stride,
            grad_stride,
            SILU=silu,
            BIASED=self.bias is not None,
            ENDED=grad_last is not None,
            **self._constants(),
        )
        return sums

    def wide(
        self,
        grad: Tensor,
        grad_last: Tensor | None,
        grad_x: Tensor,
        grad_state: Tensor | None,
        silu: bool,  # noqa: FBT001 - passed on
    ) -> Tensor:
        """Do as `narrow` does, of any number of taps."""
        d_model, width = self.weight.shape
        slopes = torch.empty_like(grad_x, dtype=torch.float32) if silu else grad.contiguous()
        if silu:
            self.forward(slopes, None, silu, grad)
        n_blocks = triton.cdiv(d_model, _WIDE_TILE["CHANNELS"])
        lying = (self.bounds, self.owners, self.cu_seqlens, self.per_row, self.x.shape[1], d_model)
        constants = self._constants() | _WIDE_TILE
        stateful = constants.pop("STATEFUL")
        last = slopes if grad_last is None else grad_last
        for n_programs, out in ((self.n_slots, grad_x), (self.n_sequences, grad_state)):
            if out is not None:
                wide.of_inputs[(n_programs * n_blocks,)](
                    slopes,
                    self.weight,
                    last,
                    out,
                    *lying,
                    BEFORE=out is not grad_x,
                    ENDED=grad_last is not None,
                    **constants,
                )
        sums = slopes.new_empty(self.n_slots, width + 1, d_model, dtype=torch.float32)
        state = self.x if self.state is None else self.state
        wide.of_taps[(self.n_slots * n_blocks, width + 1)](
            slopes, self.x, state, sums, *lying, self.x_stride, STATEFUL=stateful, **constants
        )
        return sums

    def _constants(self) -> dict[str, Any]:
        return {
            "WIDTH": self.weight.shape[1],
            "STATEFUL": self.state is not None,
            "SIZE": self.size,
            "PACKED": self.packed,
        }


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _of_empty_sequences(grad_final_state: Tensor | None, initial_state: Tensor | None) -> Tensor | None:
    """Return the gradient of a state where no token comes after it; kernels write over the others."""
    if initial_state is None:
        return None
    if grad_final_state is None:
        return torch.zeros_like(initial_state, memory_format=torch.contiguous_format)
    return grad_final_state.to(initial_state.dtype, copy=True, memory_format=torch.contiguous_format)
