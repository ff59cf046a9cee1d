"""A call of RWKV-7's recurrence in chunks: which kernels it takes, and what passes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import rows
from helix_cuda.kernels import rwkv7 as forward
from helix_cuda.kernels import rwkv7_backward as backward
from helix_cuda.ops.chunks import cut
from helix_cuda.ops.delta_chunks import padded

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_CHUNK = 16
"""Tokens of a chunk; few, since each pair of them has a decay for each channel."""
_BLOCK = 64
"""Most values that are loaded at a time."""
_BLOCK_EXACT = 16
"""The same for float32, whose products take thrice the registers."""


class Call:
    """The tokens of a call, as its kernels take them.

    Tensors between kernels are in bfloat16 where all but the decays are given so, in float32 otherwise, since
    float16 could not hold the states; products are then made in TF32, for float32 in three parts of it.

    Args:
        tokens: r, w, k, v, a and b, each (B, L, H, K) but for v, which is (B, L, H, V).
        cu_seqlens: Bounds of packed sequences, or None.
    """

    def __init__(self, tokens: tuple[Tensor, ...], cu_seqlens: Tensor | None) -> None:
        self._given = tokens
        self._places = [rows(tensor.flatten(2)) for tensor in tokens]
        r, _, k, v, a, b = tokens
        self._n_heads, self._k_dim, self._v_dim = *r.shape[2:], v.shape[3]
        dtypes = {tensor.dtype for tensor in (r, k, v, a, b)}
        exact = torch.float32 in dtypes
        self._dtype = torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32
        self._chunks = cut(r, _CHUNK, cu_seqlens)
        self._sizes = (self._chunks.per_row, r.shape[1], self._n_heads, self._k_dim, self._v_dim)
        self._block_v = min(padded(self._v_dim), _BLOCK_EXACT if exact else _BLOCK)
        self._options = {
            "T": _CHUNK,
            "BLOCK_K": padded(self._k_dim),
            "PACKED": cu_seqlens is not None,
            "PRECISION": "tf32x3" if exact else "tf32",
        }

    def results(self, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return o and the final state."""
        reads, known, squares = self._prepare()
        states, u, final_state = self._pass_states(reads, known, initial_state)
        o = torch.empty_like(self._given[3], memory_format=torch.contiguous_format)
        forward.outputs[self._grid()](
            *self._tensors("rwv"),
            states,
            u,
            squares,
            o,
            self._chunks.bounds,
            *self._sizes,
            *self._strides("rwv"),
            BLOCK_V=self._block_v,
            **self._options,
        )
        return o, final_state

    def gradients(
        self, grad_o: Tensor, grad_final_state: Tensor | None, initial_state: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the tokens' tensors and of the initial state."""
        reads, known, squares = self._prepare()
        states, u, _ = self._pass_states(reads, known, initial_state)
        slopes, stride = rows(grad_o.flatten(2))
        grad_states, grad_u, grad_initial = self._pass_back(reads, squares, slopes, stride, grad_final_state)
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in self._given]
        backward.gradients[self._grid()](
            *self._tensors("rwkvab"),
            slopes,
            u,
            grad_u,
            states,
            grad_states,
            squares,
            *found,
            self._chunks.bounds,
            *self._sizes,
            *self._strides("rwkvab"),
            stride,
            BLOCK_V=self._block_v,
            **self._options,
        )
        return (*found, grad_initial)

    def _prepare(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return what U takes of the state before a chunk (B, L, H K), of V, and the squares of each slot."""
        r, v = self._places[0][0], self._places[3][0]
        reads, known = (tensor.new_empty(tensor.shape, dtype=self._dtype) for tensor in (r, v))
        squares = reads.new_empty(self._chunks.n_slots, self._n_heads, 4, _CHUNK, _CHUNK)
        forward.prepare[self._grid()](
            *self._tensors("rwkvab"),
            reads,
            known,
            squares,
            self._chunks.bounds,
            *self._sizes,
            *self._strides("rwkvab"),
            BLOCK_V=self._block_v,
            **self._options,
        )
        return reads, known, squares

    def _pass_states(self, reads: Tensor, known: Tensor, initial_state: Tensor | None) -> tuple[Tensor, ...]:
        """Return the states before each chunk (slots, H, K, V), U like `known`, and the final state."""
        final_state = self._state_of_each()
        states, u = self._states(), torch.empty_like(known)
        forward.pass_states[self._grid_of_sequences()](
            *self._tensors("wkvb"),
            reads,
            known,
            final_state if initial_state is None else initial_state.contiguous(),
            states,
            u,
            final_state,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._sizes,
            *self._strides("wkvb"),
            STARTS=initial_state is not None,
            **self._options,
        )
        return states, u, final_state

    def _pass_back(
        self, reads: Tensor, squares: Tensor, grad_o: Tensor, stride: int, grad_final_state: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of the state after each chunk, of U, and of the initial state."""
        grad_states, grad_initial = self._states(), self._state_of_each()
        grad_u = reads.new_empty(self._places[3][0].shape)
        backward.pass_back[self._grid_of_sequences()](
            *self._tensors("rwb"),
            reads,
            squares,
            grad_o,
            grad_initial if grad_final_state is None else grad_final_state.contiguous(),
            grad_states,
            grad_u,
            grad_initial,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._sizes,
            *self._strides("rwb"),
            stride,
            ENDS=grad_final_state is not None,
            **self._options,
        )
        return grad_states, grad_u, grad_initial

    def _tensors(self, names: str) -> list[Tensor]:
        return [self._places["rwkvab".index(name)][0] for name in names]

    def _strides(self, names: str) -> list[int]:
        return [self._places["rwkvab".index(name)][1] for name in names]

    def _grid(self) -> tuple[int, int]:
        return self._chunks.n_slots, self._n_heads

    def _grid_of_sequences(self) -> Callable[[Any], tuple[int, int]]:
        n_sequences = self._chunks.n_sequences
        return lambda meta: (n_sequences * triton.cdiv(self._v_dim, meta["BLOCK_V"]), self._n_heads)

    def _states(self) -> Tensor:
        shape = self._chunks.n_slots, self._n_heads, self._k_dim, self._v_dim
        return torch.empty(shape, dtype=self._dtype, device=self._given[0].device)

    def _state_of_each(self) -> Tensor:
        shape = self._chunks.n_sequences, self._n_heads, self._k_dim, self._v_dim
        return torch.empty(shape, dtype=torch.float32, device=self._given[0].device)
