"""The elementwise linear recurrence, real or complex."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import diagonal_scan as kernels
from helix_cuda.kernels import diagonal_scan_backward as backward_kernels
from helix_cuda.ops.slots import WARP, WHOLE, interpreted_block, slots_for

_ENOUGH = 512
"""Warps that keep a GPU busy, each with the loads of a few tokens under way."""
_INTERVAL = 16
"""Steps from one state that the gradient keeps to the next."""


def diagonal_scan(a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> Any:
    """Compute the op as its contract says; not of float64 or complex128."""
    if not _serves(a, b, initial_state):
        return NotImplemented
    call = _Call(a, b, initial_state, cu_seqlens)
    h, final = torch.empty_like(call.b, memory_format=torch.contiguous_format), call.new_states()
    if not b.numel():
        return h, final.zero_() if initial_state is None else final.copy_(initial_state)
    starts = call.initial_state if call.whole else call.starts(final)[0]
    call.scan(starts, h, final, None)
    return h, final


def diagonal_scan_backward(
    grad_h: Tensor | None,
    grad_final_state: Tensor | None,
    a: Tensor,
    b: Tensor,
    initial_state: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Any:
    """Compute the op's gradient as its contract says; declines what the op does."""
    if not _serves(a, b, initial_state):
        return NotImplemented
    call, given = _Call(a, b, initial_state, cu_seqlens), (a, b, initial_state)
    grad_initial = call.new_states()
    if not b.numel():
        grad_initial = grad_initial.zero_() if grad_final_state is None else grad_final_state
        return as_given((torch.zeros_like(a), torch.zeros_like(b), grad_initial), given)
    grad = torch.zeros_like(b) if grad_h is None else grad_h.resolve_conj()
    ends = None if grad_final_state is None else grad_final_state.resolve_conj().contiguous()
    starts = call.initial_state
    if not call.whole:
        starts, decays = call.starts(torch.empty_like(grad_initial))
        ends = call.ends(grad, ends, decays, grad_initial)
    saved = call.new(call.slots.n_slots * call.chunks, call.d_model)
    call.scan(starts, None, None, saved)
    return as_given((*call.gradients(grad, ends, saved, grad_initial), grad_initial), given)


def _serves(a: Tensor, b: Tensor, initial_state: Tensor | None) -> bool:
    if not b.is_complex():
        return serves(a, b, initial_state)
    return all(tensor is None or tensor.dtype is torch.complex64 for tensor in (a, b, initial_state))


def _real(tensor: Tensor | None) -> Tensor | None:
    """Return a tensor's memory as kernels take it, complex numbers as pairs."""
    return torch.view_as_real(tensor) if tensor is not None and tensor.is_complex() else tensor


class _Call:
    """A call's arguments as the kernels take them."""

    def __init__(self, a: Tensor, b: Tensor, initial_state: Tensor | None, cu_seqlens: Tensor | None) -> None:
        self.is_complex, self.is_constant = b.is_complex(), a.dim() == 1
        self.seq_len, self.d_model = b.shape[1:]
        self.a, self.a_stride = rows(a.resolve_conj())
        self.b, self.b_stride = rows(b.resolve_conj())
        self.initial_state = None if initial_state is None else initial_state.resolve_conj().contiguous()
        slots = slots_for(b, _ENOUGH, cu_seqlens)
        self.slots, self.bounds, self.firsts = slots, _real(slots.bounds), _real(slots.firsts)
        self.whole, self.packed = self.slots.size == WHOLE, cu_seqlens is not None
        self.chunks = triton.cdiv(min(self.slots.size, self.seq_len), _INTERVAL)
        self.lanes = interpreted_block(self.d_model) or WARP

    def new(self, *shape: int) -> Tensor:
        dtype = torch.complex64 if self.is_complex else torch.float32
        return torch.empty(shape, dtype=dtype, device=self.b.device)

    def new_states(self) -> Tensor:
        return self.new(self.slots.n_sequences, self.d_model)

    def starts(self, final: Tensor) -> tuple[Tensor, Tensor]:
        """Return the state that each slot starts from and its decay, and write the final states."""
        local, decays = (self.new(self.slots.n_slots, self.d_model) for _ in range(2))
        kernels.local_states[self._grid](
            _real(self.a),
            _real(self.b),
            _real(local),
            _real(decays),
            *self._sizes,
            self.a_stride,
            self.b_stride,
            **self._modes,
        )
        return self._pass(local, decays, self.initial_state, final, backward=False), decays

    def ends(self, grad_h: Tensor, grad_final: Tensor | None, decays: Tensor, grad_initial: Tensor) -> Tensor:
        """Return the gradient of the state that each slot ends with, and write those of initial states."""
        local = torch.empty_like(decays)
        grad, grad_stride = rows(grad_h)
        backward_kernels.local_gradients[self._grid](
            _real(self.a),
            _real(grad),
            _real(local),
            *self._sizes,
            self.a_stride,
            grad_stride,
            TOKENS=self._tokens,
            **self._modes,
        )
        return self._pass(local, decays, grad_final, grad_initial, backward=True)

    def scan(
        self, starts: Tensor | None, h: Tensor | None, final: Tensor | None, saved: Tensor | None
    ) -> None:
        """Run each slot from its start, for h or for the states that the gradient keeps."""
        kernels.scan[self._grid](
            _real(self.a),
            _real(self.b),
            _real(starts),
            _real(h),
            _real(final),
            _real(saved),
            *self._sizes,
            self.chunks,
            self.a_stride,
            self.b_stride,
            START=starts is not None,
            WHOLE=self.whole,
            OUTPUTS=h is not None,
            INTERVAL=_INTERVAL,
            **self._modes,
        )

    def gradients(
        self, grad_h: Tensor, ends: Tensor | None, saved: Tensor, grad_initial: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of a and b."""
        grad, grad_stride = rows(grad_h)
        grad_b = torch.empty_like(self.b, memory_format=torch.contiguous_format)
        grad_a = torch.empty_like(grad_b, dtype=self.a.dtype)
        if self.is_constant:
            grad_a = self.new(self.slots.n_slots, self.d_model)
        backward_kernels.gradients[self._grid](
            _real(self.a),
            _real(self.b),
            _real(grad),
            _real(ends),
            _real(saved),
            _real(grad_a),
            _real(grad_b),
            _real(grad_initial),
            *self._sizes,
            self.chunks,
            self.a_stride,
            self.b_stride,
            grad_stride,
            END=ends is not None,
            WHOLE=self.whole,
            INTERVAL=_INTERVAL,
            TOKENS=self._tokens,
            **self._modes,
        )
        return grad_a.sum(0) if self.is_constant else grad_a, grad_b

    def _pass(
        self, local: Tensor, decays: Tensor, first: Tensor | None, last: Tensor, *, backward: bool
    ) -> Tensor:
        starts = torch.empty_like(local)
        kernels.pass_states[(self.slots.n_sequences, triton.cdiv(self.d_model, self.lanes))](
            _real(local),
            _real(decays),
            _real(first),
            _real(starts),
            _real(last),
            self.firsts,
            self.slots.per_row,
            self.d_model,
            PACKED=self.packed,
            COMPLEX=self.is_complex,
            INITIAL=first is not None,
            BACKWARD=backward,
            BLOCK=self.lanes,
            num_warps=1,
        )
        return starts

    def _grid(self, meta: dict[str, Any]) -> tuple[int, int]:
        return self.slots.n_slots, triton.cdiv(self.d_model, self.lanes * meta["WARPS"])

    @property
    def _tokens(self) -> int:
        """Tokens that the gradient's kernels go through at once; few, where a row has no more."""
        return _INTERVAL if self.packed else min(_INTERVAL, int(triton.next_power_of_2(self.seq_len)))

    @property
    def _sizes(self) -> tuple[Any, ...]:
        return self.bounds, self.slots.per_row, self.seq_len, self.d_model

    @property
    def _modes(self) -> dict[str, Any]:
        return {
            "SIZE": self.slots.size,
            "PACKED": self.packed,
            "COMPLEX": self.is_complex,
            "CONSTANT": self.is_constant,
            "LANES": self.lanes,
        }
