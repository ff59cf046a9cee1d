"""A call of gated linear attention in chunks: which kernels it takes, and what passes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import rows
from helix_cuda.kernels import gla as forward
from helix_cuda.kernels import gla_backward as backward
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
        tokens: q, k, v and g, each (B, L, H, K) but for v, which is (B, L, H, V).
        scale: Factor on the queries.
        cu_seqlens: Bounds of packed sequences, or None.
    """

    def __init__(self, tokens: tuple[Tensor, ...], scale: float, cu_seqlens: Tensor | None) -> None:
        self._given = tokens
        self._places = [rows(tensor.flatten(2)) for tensor in tokens]
        q, k, v, _ = tokens
        self._n_heads, self._k_dim, self._v_dim = *q.shape[2:], v.shape[3]
        dtypes = {tensor.dtype for tensor in (q, k, v)}
        exact = torch.float32 in dtypes
        self._dtype = torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32
        self._chunks = cut(q, _CHUNK, cu_seqlens)
        self._sizes = (scale, self._chunks.per_row, q.shape[1], self._n_heads, self._k_dim)
        self._block_v = min(padded(self._v_dim), _BLOCK_EXACT if exact else _BLOCK)
        self._tiles = {"T": _CHUNK, "BLOCK_K": padded(self._k_dim), "PACKED": cu_seqlens is not None}
        self._precision = "tf32x3" if exact else "tf32"

    def results(self, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return o and the final state."""
        o = torch.empty_like(self._given[2], memory_format=torch.contiguous_format)
        squares = self._scores()
        return o, self._walk(squares, initial_state, o=o, states=squares, keeps=False)

    def gradients(
        self, grad_o: Tensor, grad_final_state: Tensor | None, initial_state: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the tokens' tensors and of the initial state."""
        squares, states = self._scores(), self._states()
        self._walk(squares, initial_state, o=squares, states=states, keeps=True)
        slopes, stride = rows(grad_o.flatten(2))
        grad_states, grad_initial = self._walk_back(slopes, stride, grad_final_state)
        found = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in self._given]
        backward.gradients[self._grid()](
            *self._tensors("qkvg"),
            slopes,
            squares,
            states,
            grad_states,
            *found,
            self._chunks.bounds,
            *self._sizes,
            self._v_dim,
            *self._strides("qkvg"),
            stride,
            BLOCK_V=self._block_v,
            PRECISION=self._precision,
            **self._tiles,
        )
        return (*found, grad_initial)

    def _scores(self) -> Tensor:
        """Return N of each slot (slots, H, T, T)."""
        shape = self._chunks.n_slots, self._n_heads, _CHUNK, _CHUNK
        squares = self._given[0].new_empty(shape, dtype=self._dtype)
        forward.scores[self._grid()](
            *self._tensors("qkg"),
            squares,
            self._chunks.bounds,
            *self._sizes,
            *self._strides("qkg"),
            **self._tiles,
        )
        return squares

    def _walk(
        self, squares: Tensor, initial_state: Tensor | None, *, o: Tensor, states: Tensor, keeps: bool
    ) -> Tensor:
        """Write o or, if it keeps them, the states before chunks (slots, H, K, V); return the last one."""
        final_state = self._state_of_each()
        forward.walk[self._grid_of_sequences()](
            *self._tensors("qkvg"),
            squares,
            final_state if initial_state is None else initial_state.contiguous(),
            o,
            states,
            final_state,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._sizes,
            self._v_dim,
            *self._strides("qkvg"),
            STARTS=initial_state is not None,
            KEEPS=keeps,
            PRECISION=self._precision,
            **self._tiles,
        )
        return final_state

    def _walk_back(
        self, grad_o: Tensor, stride: int, grad_final_state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the gradients of the state after each chunk and of the initial state."""
        grad_states, grad_initial = self._states(), self._state_of_each()
        backward.walk_back[self._grid_of_sequences()](
            *self._tensors("qg"),
            grad_o,
            grad_initial if grad_final_state is None else grad_final_state.contiguous(),
            grad_states,
            grad_initial,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._sizes,
            self._v_dim,
            *self._strides("qg"),
            stride,
            ENDS=grad_final_state is not None,
            PRECISION=self._precision,
            **self._tiles,
        )
        return grad_states, grad_initial

    def _tensors(self, names: str) -> list[Tensor]:
        return [self._places["qkvg".index(name)][0] for name in names]

    def _strides(self, names: str) -> list[int]:
        return [self._places["qkvg".index(name)][1] for name in names]

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
