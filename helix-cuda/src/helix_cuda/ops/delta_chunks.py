"""A call of the gated delta rule in chunks: which kernels it takes, and what passes between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton

from helix_cuda.arguments import rows
from helix_cuda.kernels import gated_delta_rule as forward
from helix_cuda.kernels import gated_delta_rule_backward as backward
from helix_cuda.ops.chunks import cut

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_SIDE = 64
"""Most tokens of a chunk, and most channels that are loaded at a time."""
_SIDE_EXACT = 32
"""The same for float32, whose products take thrice the registers."""


class Call:
    """The arguments of a call, as its kernels take them.

    Tensors between kernels are in bfloat16 where queries, keys and values all are, and the tensor cores
    multiply them as such. They are in float32 otherwise, since float16 could not hold the states; products
    of float16 are then made in TF32, which keeps all their digits, and those of float32 in three parts of it,
    which keep nearly all: as they are, the tensor cores could not make them.

    Args:
        q: Queries (B, L, H, K).
        k: Keys (B, L, H, K).
        v: Values (B, L, H, V).
        g: Logarithms of the decay (B, L, H).
        beta: Strengths of the write (B, L, H).
        scale: Factor on the outputs.
        cu_seqlens: Bounds of packed sequences, or None.
    """

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        scale: float,
        cu_seqlens: Tensor | None,
    ) -> None:
        self._given = (q, k, v, g, beta)
        self._scale = scale
        self._q, self._q_stride = rows(q.flatten(2))
        self._k, self._k_stride = rows(k.flatten(2))
        self._v, self._v_stride = rows(v.flatten(2))
        self._g, self._g_stride = rows(g)
        self._beta, self._beta_stride = rows(beta)
        self._n_heads, self._k_dim, self._v_dim = *q.shape[2:], v.shape[3]
        dtypes = {q.dtype, k.dtype, v.dtype}
        self._dtype = torch.bfloat16 if dtypes == {torch.bfloat16} else torch.float32
        exact = torch.float32 in dtypes
        side = _SIDE_EXACT if exact else _SIDE
        self._chunks = cut(q, min(padded(q.shape[1]), side), cu_seqlens)
        self._places = (self._chunks.per_row, q.shape[1], self._n_heads, self._k_dim, self._v_dim)
        self._block_k, self._block_v = (min(padded(width), side) for width in (self._k_dim, self._v_dim))
        # One kernel keeps three sums in registers.
        self._block_k_of_three = min(self._block_k, _SIDE_EXACT // 2) if exact else self._block_k
        self._options = {
            "T": self._chunks.size,
            "PACKED": cu_seqlens is not None,
            "PRECISION": "tf32x3" if exact else "tf32",
        }

    def results(self, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return o and the final state."""
        u, w, _ = self._prepare(keep=False)
        states, x, final_state = self._pass_states(u, w, initial_state)
        o = torch.empty_like(self._given[2], memory_format=torch.contiguous_format)
        forward.outputs[self._grid(self._v_dim)](
            self._q,
            self._k,
            self._g,
            states,
            x,
            o,
            self._chunks.bounds,
            *self._places,
            self._scale,
            self._q_stride,
            self._k_stride,
            self._g_stride,
            BLOCK_K=self._block_k,
            BLOCK_V=self._block_v,
            **self._options,
        )
        return o, final_state

    def gradients(
        self, grad_o: Tensor, grad_final_state: Tensor | None, initial_state: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return the gradients of q, k, v, g, beta and the initial state."""
        u, w, inverse = self._prepare(keep=True)
        states, x, _ = self._pass_states(u, w, initial_state)
        o_place = rows(grad_o.flatten(2))
        own_grad_x = u  # of the same shape, and no longer read
        self._from_outputs(own_grad_x, *o_place)
        grad_states, grad_x, grad_initial = self._pass_back(w, own_grad_x, states, grad_final_state, *o_place)
        grad_v, y, *local = self._of_values(inverse, x, grad_x, *o_place)
        grad_q, grad_k, grad_g, grad_beta = self._of_keys(states, grad_states, x, y, local, *o_place)
        return grad_q, grad_k, grad_v, grad_g, grad_beta, grad_initial

    def _prepare(self, *, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return u, w and, where it is kept, the inverse (slots, H, T, T)."""
        u, w = self._new(*self._v.shape), self._new(*self._k.shape)
        inverse = self._squares() if keep else u
        forward.prepare[self._grid()](
            self._k,
            self._v,
            self._g,
            self._beta,
            u,
            w,
            inverse,
            self._chunks.bounds,
            *self._places,
            self._k_stride,
            self._v_stride,
            self._g_stride,
            self._beta_stride,
            BLOCK_K=self._block_k,
            BLOCK_V=self._block_v,
            KEEP=keep,
            **self._options,
        )
        return u, w, inverse

    def _pass_states(self, u: Tensor, w: Tensor, initial_state: Tensor | None) -> tuple[Tensor, ...]:
        """Return the states before each chunk (slots, H, K, V), X like u, and the final state."""
        states, x = self._states(), torch.empty_like(u)
        final_state = self._state_of_each()
        forward.pass_states[self._grid_of_sequences()](
            self._k,
            u,
            w,
            self._g,
            final_state if initial_state is None else initial_state.contiguous(),
            states,
            x,
            final_state,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._places,
            self._k_stride,
            self._g_stride,
            BLOCK_K=padded(self._k_dim),
            STARTS=initial_state is not None,
            **self._options,
        )
        return states, x, final_state

    def _from_outputs(self, grad_x: Tensor, grad_o: Tensor, o_stride: int) -> None:
        """Write what X takes of its own chunk's outputs."""
        backward.from_outputs[self._grid(self._v_dim)](
            self._q,
            self._k,
            self._g,
            grad_o,
            grad_x,
            self._chunks.bounds,
            *self._places,
            self._scale,
            self._q_stride,
            self._k_stride,
            self._g_stride,
            o_stride,
            BLOCK_K=self._block_k,
            BLOCK_V=self._block_v,
            **self._options,
        )

    def _pass_back(
        self,
        w: Tensor,
        own_grad_x: Tensor,
        states: Tensor,
        grad_final_state: Tensor | None,
        grad_o: Tensor,
        o_stride: int,
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the state after each chunk, of X, and of the initial state."""
        grad_states, grad_x = torch.empty_like(states), torch.empty_like(own_grad_x)
        grad_initial = self._state_of_each()
        backward.pass_back[self._grid_of_sequences()](
            self._q,
            self._k,
            w,
            self._g,
            grad_o,
            grad_initial if grad_final_state is None else grad_final_state.contiguous(),
            own_grad_x,
            grad_states,
            grad_x,
            grad_initial,
            self._chunks.bounds,
            self._chunks.firsts,
            *self._places,
            self._scale,
            self._q_stride,
            self._k_stride,
            self._g_stride,
            o_stride,
            BLOCK_K=padded(self._k_dim),
            ENDS=grad_final_state is not None,
            **self._options,
        )
        return grad_states, grad_x, grad_initial

    def _of_values(
        self, inverse: Tensor, x: Tensor, grad_x: Tensor, grad_o: Tensor, o_stride: int
    ) -> tuple[Tensor, ...]:
        """Return the gradient of v, Y, the gradients of both squares, and what g and beta take of these."""
        grad_v = torch.empty_like(self._given[2], memory_format=torch.contiguous_format)
        y = torch.empty_like(x)
        of_scores, of_system = torch.empty_like(inverse), torch.empty_like(inverse)
        own_grad_g, own_grad_beta = (self._g.new_empty(self._g.shape, dtype=torch.float32) for _ in "gb")
        backward.of_values[self._grid()](
            self._q,
            self._k,
            self._v,
            self._g,
            self._beta,
            grad_o,
            inverse,
            x,
            grad_x,
            grad_v,
            y,
            of_scores,
            of_system,
            own_grad_g,
            own_grad_beta,
            self._chunks.bounds,
            *self._places,
            self._scale,
            self._q_stride,
            self._k_stride,
            self._v_stride,
            self._g_stride,
            self._beta_stride,
            o_stride,
            BLOCK_K=self._block_k,
            BLOCK_V=self._block_v,
            **self._options,
        )
        return grad_v, y, of_scores, of_system, own_grad_g, own_grad_beta

    def _of_keys(
        self,
        states: Tensor,
        grad_states: Tensor,
        x: Tensor,
        y: Tensor,
        local: list[Tensor],
        grad_o: Tensor,
        o_stride: int,
    ) -> list[Tensor]:
        """Return the gradients of q, k, g and beta; `local` is the rest of what `_of_values` returns."""
        q, k, _, g, beta = self._given
        found = [
            torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in (q, k, g, beta)
        ]
        backward.of_keys[self._grid()](
            self._q,
            self._k,
            self._g,
            self._beta,
            grad_o,
            states,
            grad_states,
            x,
            y,
            *local,
            *found,
            self._chunks.bounds,
            *self._places,
            self._scale,
            self._q_stride,
            self._k_stride,
            self._g_stride,
            self._beta_stride,
            o_stride,
            BLOCK_K=self._block_k_of_three,
            BLOCK_V=self._block_v,
            **self._options,
        )
        return found

    def _grid(self, width: int = 1) -> Callable[[Any], tuple[int, int]]:
        """Return the grid of a kernel of all chunks, with a program for each block of `width` values."""
        return lambda meta: (self._chunks.n_slots * triton.cdiv(width, meta["BLOCK_V"]), self._n_heads)

    def _grid_of_sequences(self) -> Callable[[Any], tuple[int, int]]:
        n_sequences = self._chunks.n_sequences
        return lambda meta: (n_sequences * triton.cdiv(self._v_dim, meta["BLOCK_V"]), self._n_heads)

    def _new(self, *shape: int) -> Tensor:
        return self._v.new_empty(shape, dtype=self._dtype)

    def _squares(self) -> Tensor:
        return self._new(self._chunks.n_slots, self._n_heads, self._chunks.size, self._chunks.size)

    def _states(self) -> Tensor:
        return self._new(self._chunks.n_slots, self._n_heads, self._k_dim, self._v_dim)

    def _state_of_each(self) -> Tensor:
        shape = self._chunks.n_sequences, self._n_heads, self._k_dim, self._v_dim
        return self._v.new_empty(shape, dtype=torch.float32)


def padded(width: int) -> int:
    """Return a power of two that holds `width` channels and is not below what the tensor cores take."""
    return max(16, int(triton.next_power_of_2(width)))
