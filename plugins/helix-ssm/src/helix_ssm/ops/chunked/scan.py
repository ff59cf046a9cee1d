"""The recurrence h_t = exp(dt_t A) h_{t-1} + B_t x_t in chunks of time, forward and backward.

A chunk's decays and inputs are made by one call each; then a time step is one fused call, and the
products with B and C are batched matrix products. Channels come last and states before them, so
that every call runs along contiguous memory, and a thread works on the same rows of the batch in
each. The backward pass makes a chunk's states anew from the state saved at its start.

Shapes: G groups of K channels, dt and x (B, L, G, K), A (G, N, K), B and C (B, L, G, N), state
(B, G, N, K); all of one dtype.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from helix_ssm.ops.selective_scan import INTERVAL


def scan(
    dt: Tensor, x: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the recurrence.

    Args:
        dt: Step sizes (B, L, G, K).
        x: Inputs (B, L, G, K).
        A: Decay rates (G, N, K).
        B: Input projections (B, L, G, N).
        C: Output projections (B, L, G, N).
        state: State before the first step (B, G, N, K).

    Returns:
        y (B, L, G, K), the state (B, G, N, K) after the last step, and the states before each chunk
        but the first ((L - 1) / INTERVAL, B, G, N, K).
    """
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    chunks = _chunks(x.shape[1])
    states = state.new_empty(max(len(chunks) - 1, 0), *state.shape)
    buffers = _Buffers(x, A)
    for i, chunk in enumerate(chunks):
        h = buffers.run(dt[:, chunk], x[:, chunk], A, B[:, chunk], state)
        y[:, chunk] = _over_states(C[:, chunk], h)
        if i < len(states):
            states[i] = h[:, -1]
            state = states[i]
        else:
            state = h[:, -1]
    return y, state, states


def scan_backward(
    grad_y: Tensor,
    grad_state: Tensor,
    states: Tensor,
    dt: Tensor,
    x: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Differentiate `scan`.

    Args:
        grad_y: Gradient of y (B, L, G, K).
        grad_state: Gradient of the state after the last step (B, G, N, K).
        states: States before each chunk but the first ((L - 1) / INTERVAL, B, G, N, K).
        dt: As given to `scan`, and so the others.
        x: See `scan`.
        A: See `scan`.
        B: See `scan`.
        C: See `scan`.
        state: See `scan`.

    Returns:
        y once more, and the gradients of dt, x, A, B, C and the first state.
    """
    y, grad_dt, grad_x = (torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(3))
    grad_B, grad_C = (torch.empty_like(B, memory_format=torch.contiguous_format) for _ in range(2))
    grad_A = torch.zeros_like(A)
    chunks = _chunks(x.shape[1])
    buffers = _Buffers(x, A)
    for i in reversed(range(len(chunks))):
        chunk, start = chunks[i], states[i - 1] if i else state
        h = buffers.run(dt[:, chunk], x[:, chunk], A, B[:, chunk], start)
        y[:, chunk] = _over_states(C[:, chunk], h)
        grad_C[:, chunk] = _over_channels(grad_y[:, chunk], h)
        grad_h = buffers.run_back(grad_y[:, chunk], C[:, chunk], grad_state)
        grad_B[:, chunk] = _over_channels(x[:, chunk], grad_h)
        grad_x[:, chunk] = _over_states(B[:, chunk], grad_h)
        grad_state, through_decay = buffers.through_decay(start)
        grad_dt[:, chunk] = torch.mul(through_decay, A, out=grad_h).sum(3)
        grad_A += through_decay.mul_(dt[:, chunk].unsqueeze(3)).sum((0, 1))
    return y, grad_dt, grad_x, grad_A, grad_B, grad_C, grad_state


class _Buffers:
    """Memory for one chunk's decays, states and gradients of states, used again for each chunk.

    Args:
        x: Inputs, for the size of the batch.
        A: Decay rates, for the groups, states and channels.
    """

    def __init__(self, x: Tensor, A: Tensor) -> None:
        self._whole = A.new_empty(3, x.shape[0] * INTERVAL * A.numel())
        self._shape = (x.shape[0], *A.shape)
        self._resize(min(INTERVAL, x.shape[1]))

    def _resize(self, n_steps: int) -> None:
        """Lay contiguous buffers (B, T, G, N, K) of `n_steps` steps into the memory."""
        shape = (self._shape[0], n_steps, *self._shape[1:])
        buffers: list[Tensor] = [row[: math.prod(shape)].view(shape) for row in self._whole]
        self._decay, self._h, self._grad_h = buffers
        self._decays, self._hs, self._grad_hs = (buffer.unbind(1) for buffer in buffers)

    def run(self, dt: Tensor, x: Tensor, A: Tensor, B: Tensor, state: Tensor) -> Tensor:
        """Return the states after each step of a chunk (B, T, G, N, K)."""
        if x.shape[1] != len(self._hs):
            self._resize(x.shape[1])
        torch.mul(dt.unsqueeze(3), A, out=self._decay).exp_()
        torch.mul(x.unsqueeze(3), B.unsqueeze(4), out=self._h)
        for decay, h in zip(self._decays, self._hs, strict=True):
            state = h.addcmul_(decay, state)
        return self._h

    def run_back(self, grad_y: Tensor, C: Tensor, grad_state: Tensor) -> Tensor:
        """Return the gradients of the states after each step (B, T, G, N, K)."""
        torch.mul(grad_y.unsqueeze(3), C.unsqueeze(4), out=self._grad_h)
        self._grad_hs[-1].add_(grad_state)
        for t in range(len(self._hs) - 1, 0, -1):
            self._grad_hs[t - 1].addcmul_(self._decays[t], self._grad_hs[t])
        return self._grad_h

    def through_decay(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of the state before the chunk, and of dt A (B, T, G, N, K).

        The latter is grad_h_t exp(dt_t A) h_{t-1}. It takes the memory of the decays.
        """
        self._decay.mul_(self._grad_h)
        grad_state = self._decays[0].clone()
        self._decays[0].mul_(state)
        self._decay[:, 1:].mul_(self._h[:, :-1])
        return grad_state, self._decay


def _chunks(seq_len: int) -> list[slice]:
    return [slice(start, min(start + INTERVAL, seq_len)) for start in range(0, seq_len, INTERVAL)]


def _over_states(projection: Tensor, h: Tensor) -> Tensor:
    """Sum the products of (B, T, G, N) and (B, T, G, N, K) over N."""
    rows = projection.reshape(-1, 1, projection.shape[-1])
    return torch.bmm(rows, h.flatten(0, 2)).view((*h.shape[:3], h.shape[4]))


def _over_channels(values: Tensor, h: Tensor) -> Tensor:
    """Sum the products of (B, T, G, K) and (B, T, G, N, K) over K."""
    rows = values.reshape(-1, 1, values.shape[-1])
    return torch.bmm(rows, h.flatten(0, 2).transpose(1, 2)).view((*h.shape[:3], h.shape[3]))
