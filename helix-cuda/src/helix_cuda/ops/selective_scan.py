"""Selective scan: the recurrence of Mamba."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from helix_cuda.arguments import as_given, rows, serves
from helix_cuda.kernels import selective_scan as kernels
from helix_cuda.kernels import selective_scan_backward as backward_kernels
from helix_cuda.ops.slots import WARP, WHOLE, interpreted_block, slots_for

INTERVAL = 16
"""Steps from one saved state to the next, as the op's contract has it."""
_MOST_STATES = 256
"""States of a channel; with more, the op is left to another backend."""
_ENOUGH = 256
"""Warps that keep a GPU busy: a row is then not cut."""
_STATES_OF_A_THREAD = 32
"""Most states of a channel that a thread holds in the forward kernels; with more, threads share it."""
_BACKWARD_STATES_OF_A_THREAD = 4
"""The same for the gradients' kernel, which holds those of 16 tokens."""
_BACKWARD_WARPS = 8
_BACKWARD_TOKENS = 4


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
    """Compute the op as its contract says; not of float64, nor of more than 256 states."""
    if not _serves(u, delta, A, B, C, D, z, delta_bias, initial_state):
        return NotImplemented
    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    y = torch.empty_like(u, memory_format=torch.contiguous_format)
    n_saved = 0 if cu_seqlens is not None else max(u.shape[1] - 1, 0) // INTERVAL
    saved = call.new(n_saved, u.shape[0], call.groups, A.shape[1], u.shape[2] // call.groups)
    final = call.new(call.slots.n_sequences, *A.shape)
    if not u.numel():
        return y, final.zero_() if initial_state is None else final.copy_(initial_state), saved
    starts = call.initial_state if call.whole else call.starts(final)
    call.scan(starts, y, final, saved, save=cu_seqlens is None)
    return y, final, saved


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
    """Compute the op's gradient as its contract says; declines what the op does."""
    if not _serves(u, delta, A, B, C, D, z, delta_bias, initial_state):
        return NotImplemented
    call = _Call(u, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, cu_seqlens)
    given = (u, delta, A, B, C, D, z, delta_bias, initial_state)
    grad_initial = call.new(call.slots.n_sequences, *A.shape)
    if not u.numel():
        grad_initial = grad_initial.zero_() if grad_final_state is None else grad_final_state
        zeros = [None if tensor is None else torch.zeros_like(tensor) for tensor in given[:-1]]
        return as_given((*zeros, grad_initial), given)
    grad = torch.zeros_like(call.u) if grad_y is None else grad_y.contiguous()
    ends = None if grad_final_state is None else call.lay_out(grad_final_state)
    if not call.whole:
        ends = call.ends(grad, ends, grad_initial)
    saved = states.contiguous() if cu_seqlens is None else call.packed_states(grad_initial)
    return as_given(call.gradients(grad, ends, saved, grad_initial), given)


def _serves(u: Tensor, delta: Tensor, A: Tensor, *others: Tensor | None) -> bool:
    return serves(u, delta, A, *others) and 0 < A.shape[1] <= _MOST_STATES


class _Call:
    """A call's arguments as the kernels take them."""

    def __init__(
        self,
        u: Tensor,
        delta: Tensor,
        A: Tensor,
        B: Tensor,
        C: Tensor,
        D: Tensor | None,
        z: Tensor | None,
        delta_bias: Tensor | None,
        softplus: bool,  # noqa: FBT001 - the op's schema
        initial_state: Tensor | None,
        cu_seqlens: Tensor | None,
    ) -> None:
        self.n_rows, self.seq_len, self.d_model = u.shape
        self.d_state = A.shape[1]
        self.groups = B.shape[2] if B.dim() == 4 else 1
        self.width = self.d_model // self.groups
        (self.u, self.u_stride), (self.delta, self.delta_stride) = rows(u), rows(delta)
        (self.B, self.B_stride), (self.C, self.C_stride) = rows(B), rows(C)
        self.z: Tensor | None = None
        self.z_stride = 0
        if z is not None:
            self.z, self.z_stride = rows(z)
        # A single step is one launch: nothing is laid out for it.
        self.is_step = self.seq_len == 1 and cu_seqlens is None
        self.state_strides = (self.d_state, 1, 0) if self.is_step else (1, self.d_model, 0)
        self.A = self.lay_out(A)
        self.D = None if D is None else D.contiguous()
        self.delta_bias = None if delta_bias is None else delta_bias.contiguous()
        self.initial_state = None if initial_state is None else self.lay_out(initial_state)
        self.softplus = softplus
        self.slots = slots_for(u, _ENOUGH, cu_seqlens)
        self.whole = self.slots.size == WHOLE
        self.packed = cu_seqlens is not None
        self.N = triton.next_power_of_2(self.d_state)
        self.lanes = _lanes(self.N, self.width)

    def lay_out(self, states: Tensor) -> Tensor:
        """Return states (..., D, N) with `state_strides`."""
        return states.contiguous() if self.is_step else states.transpose(-1, -2).contiguous()

    def new(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.u.device)

    def starts(self, final: Tensor) -> Tensor:
        """Return the state that each slot starts from (slots, N, D), and write the final ones."""
        local, sums = self._per_slot()
        kernels.local_states[self._grid](
            self.u,
            self.delta,
            self.A,
            self.B,
            self.delta_bias,
            local,
            sums,
            *self._sizes,
            self.u_stride,
            self.delta_stride,
            self.B_stride,
            **self._constants,
        )
        return self._pass(local, sums, self.initial_state, final, backward=False)

    def ends(self, grad_y: Tensor, grad_final: Tensor | None, grad_initial: Tensor) -> Tensor:
        """Return the gradient of the state that each slot ends with, and write those of initial states."""
        local, sums = self._per_slot()
        backward_kernels.local_gradients[self._grid](
            grad_y,
            self.delta,
            self.A,
            self.C,
            self.z,
            self.delta_bias,
            local,
            sums,
            *self._sizes,
            self.delta_stride,
            self.C_stride,
            self.z_stride,
            GATED=self.z is not None,
            **self._constants,
        )
        return self._pass(local, sums, grad_final, grad_initial, backward=True)

    def packed_states(self, unused: Tensor) -> Tensor:
        """Return the states before every `INTERVAL`-th token of each slot."""
        starts = self.starts(torch.empty_like(unused))
        saved = self.new(self.slots.n_slots, self.slots.size // INTERVAL, self.d_model, self.d_state)
        self.scan(starts, None, None, saved, save=True)
        return saved

    def scan(
        self, starts: Tensor | None, y: Tensor | None, final: Tensor | None, saved: Tensor, *, save: bool
    ) -> None:
        """Run each slot from its start."""
        kernels.scan[self._grid](
            self.u,
            self.delta,
            self.A,
            self.B,
            self.C,
            self.D,
            self.z,
            self.delta_bias,
            starts,
            y,
            final,
            saved,
            *self._sizes,
            self.n_rows,
            self.u_stride,
            self.delta_stride,
            self.B_stride,
            self.C_stride,
            self.z_stride,
            SKIP=self.D is not None,
            GATED=self.z is not None,
            START=starts is not None,
            WHOLE=self.whole,
            OUTPUTS=y is not None,
            SAVE=save,
            INTERVAL=INTERVAL,
            **self._constants,
        )

    def gradients(
        self, grad_y: Tensor, ends: Tensor | None, saved: Tensor, grad_initial: Tensor
    ) -> tuple[Tensor | None, ...]:
        """Return the gradient of each differentiable argument."""
        tile = _tile(self.N, self.width)
        n_parts = triton.cdiv(self.width, tile["DH"] * tile["DL"])
        n_slots, n_tokens = self.slots.n_slots, self.n_rows * self.seq_len
        grad_u, grad_delta = (
            torch.empty(self.u.shape, dtype=like.dtype, device=like.device) for like in (self.u, self.delta)
        )
        grad_z = None if self.z is None else torch.empty_like(grad_u, dtype=self.z.dtype)
        grad_B, grad_C = (self.new(n_parts, n_tokens * self.groups, self.d_state) for _ in range(2))
        grad_A, grad_D, grad_bias = (self.new(n_slots, self.d_model, k) for k in (self.d_state, 1, 1))
        backward_kernels.gradients[(n_slots, self.groups * n_parts)](
            grad_y,
            self.u,
            self.delta,
            self.A,
            self.B,
            self.C,
            self.D,
            self.z,
            self.delta_bias,
            self.initial_state,
            saved,
            ends,
            grad_u,
            grad_delta,
            grad_z,
            grad_A,
            grad_B,
            grad_C,
            grad_D,
            grad_bias,
            grad_initial,
            *self._sizes,
            self.n_rows,
            n_tokens,
            self.u_stride,
            self.delta_stride,
            self.B_stride,
            self.C_stride,
            self.z_stride,
            SKIP=self.D is not None,
            GATED=self.z is not None,
            INITIAL=self.initial_state is not None,
            END=ends is not None,
            WHOLE=self.whole,
            INTERVAL=INTERVAL,
            **self._modes,
            **tile,
            num_warps=_BACKWARD_WARPS,
        )
        summed = (grad_A.sum(0), grad_B.sum(0), grad_C.sum(0), grad_D.sum(0))
        return grad_u, grad_delta, *summed, grad_z, grad_bias.sum(0), grad_initial

    def _per_slot(self) -> tuple[Tensor, Tensor]:
        n_slots = self.slots.n_slots
        return self.new(n_slots, self.d_state, self.d_model), self.new(n_slots, self.d_model)

    def _pass(
        self, local: Tensor, sums: Tensor, first: Tensor | None, last: Tensor, *, backward: bool
    ) -> Tensor:
        starts = torch.empty_like(local)
        block = WARP if self.N <= _STATES_OF_A_THREAD else 1
        kernels.pass_states[(self.slots.n_sequences, triton.cdiv(self.d_model, block))](
            local,
            sums,
            self.A,
            first,
            starts,
            last,
            self.slots.firsts,
            self.slots.per_row,
            self.d_model,
            self.d_state,
            *self.state_strides,
            PACKED=self.packed,
            INITIAL=first is not None,
            BACKWARD=backward,
            N=self.N,
            BLOCK=block,
            num_warps=1,
        )
        return starts

    def _grid(self, meta: dict[str, Any]) -> tuple[int, int]:
        return self.slots.n_slots, self.groups * triton.cdiv(self.width, self.lanes * meta["WARPS"])

    @property
    def _sizes(self) -> tuple[Any, ...]:
        """What most kernels take after their tensors."""
        where = (self.slots.bounds, self.slots.per_row, self.seq_len)
        return *where, self.d_model, self.width, self.d_state, self.groups, *self.state_strides

    @property
    def _modes(self) -> dict[str, Any]:
        """Constants that most kernels take."""
        return {
            "SIZE": self.slots.size,
            "PACKED": self.packed,
            "SOFTPLUS": self.softplus,
            "BIAS": self.delta_bias is not None,
        }

    @property
    def _constants(self) -> dict[str, Any]:
        """The same, and those of a kernel where a warp holds `lanes` channels."""
        return {**self._modes, "N": self.N, "LANES": self.lanes}


def _lanes(n: int, width: int) -> int:
    """Return how many channels a warp of the forward kernels has, for n states, a power of two."""
    return interpreted_block(width) or max(1, min(WARP, WARP * _STATES_OF_A_THREAD // n))


def _tile(n: int, width: int) -> dict[str, int]:
    """Return how the gradients' kernel lays states and channels over registers, warps and lanes."""
    lanes = max(1, min(WARP, n // _BACKWARD_STATES_OF_A_THREAD))
    channels = WARP // lanes
    block = interpreted_block(width) or channels * _BACKWARD_WARPS
    tile = {"NH": n // lanes, "DH": max(1, block // channels), "NL": lanes, "DL": channels}
    return {**tile, "TOKENS": _BACKWARD_TOKENS}
