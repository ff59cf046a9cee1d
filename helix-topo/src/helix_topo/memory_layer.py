"""A layer that reads, of all positions before, the k that are most like the current one."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_topo.memory_state import MemoryState, Store, empty_store
from helix_topo.nearest import attend_to_candidates, attend_to_nearest
from helix_topo.stream_index import StreamIndex

_SHARPNESS = 10.0


class MemoryLayer(nn.Module):
    """Attention over the k nearest of all earlier positions of the same row, behind a gate.

    After Wu et al. (2022), Memorizing Transformers, arXiv:2203.08913, section 3.2: queries and keys of unit
    length, a softmax over the k best, and a gate for each head; here over the row's own past rather than
    over other documents, and the gate is a map of the input. A position is remembered under a key made of
    the position `shift` before it, as continuations are under their contexts by Khandelwal et al. (2020),
    kNN-LM, arXiv:1911.00172, section 2: where what went before comes again, what followed it is found. The
    first `shift` positions have no key and are not remembered. Maps of queries and keys start equal, so that
    like finds like from the first step.

    The k are chosen without a gradient; their weights have one in queries, keys and values. With k at least
    the number of positions this is softmax attention. What sees nothing reads 0.

    Args:
        d_model: Width D of input and output.
        n_heads: Number of heads H.
        head_dim: Width K of a head; None for d_model / n_heads.
        k: How many positions a head reads.
        shift: How far before a position its key is made; 0 for the position itself.
        window: How many positions are remembered, the current one included; None for all.
        approximate_above: How many positions a stream may have seen (`extend` and `step`, without gradients)
            before a graph of neighbours finds those to read; it may miss some. None for never.

    Raises:
        ArgumentError: A size is out of range, n_heads does not divide d_model and head_dim is None, or both
            `window` and `approximate_above` are given.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 1,
        head_dim: int | None = None,
        k: int = 32,
        shift: int = 1,
        window: int | None = None,
        approximate_above: int | None = None,
    ) -> None:
        super().__init__()
        sizes = {"k": k, "window": window, "approximate_above": approximate_above}
        _check(d_model, n_heads, head_dim, sizes, shift)
        self.approximate_above, self._index = approximate_above, StreamIndex()
        self.d_model, self.n_heads, self.k, self.shift, self.window = d_model, n_heads, k, shift, window
        self.head_dim = d_model // n_heads if head_dim is None else head_dim
        d_inner = self.n_heads * self.head_dim
        self.q_proj = nn.Linear(d_model, d_inner, bias=False)
        self.k_proj = nn.Linear(d_model, d_inner, bias=False)
        self.v_proj = nn.Linear(d_model, d_inner, bias=False)
        self.gate_proj = nn.Linear(d_model, n_heads)
        self.out_proj = nn.Linear(d_inner, d_model, bias=False)
        self.log_scale = nn.Parameter(torch.full((n_heads,), math.log(_SHARPNESS)))
        with torch.no_grad():
            self.k_proj.weight.copy_(self.q_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to the same shape."""
        _check_inputs(x, self.d_model)
        before = F.pad(x, (0, 0, self.shift, 0))[:, : x.shape[1]]
        positions = torch.arange(x.shape[1], device=x.device).expand(x.shape[:2])
        return self._read(x, [self._remembered(x, before, positions)], positions)

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MemoryState:
        """Return the state before the first token, which remembers nothing."""
        like = self.out_proj.weight.new_empty(0, device=device, dtype=dtype)
        nothing = empty_store(like, (batch_size, self.n_heads, self.head_dim))
        length = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return MemoryState(nothing, nothing, like.new_zeros(batch_size, self.shift, self.d_model), length)

    def extend(self, x: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        Raises:
            ArgumentError: The state has another number of rows.
        """
        _check_inputs(x, self.d_model)
        if len(state.length) != len(x):
            raise ArgumentError(f"memory-layer: state has {len(state.length)} rows, allowed are {len(x)}")
        inputs = torch.cat([state.last, x.to(state.last.dtype)], dim=1)
        before, last = inputs[:, : x.shape[1]], inputs[:, x.shape[1] :]
        positions = state.length.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        own = self._remembered(x, before.to(x.dtype), positions)
        own = Store(own.keys.to(state.last.dtype), own.values.to(state.last.dtype), own.positions)
        y = self._read(x, [state.settled, state.recent, own], positions)
        after = state.append(own, last, window=self.window)
        self._index.go_on(state.settled, after.settled)
        return y, after

    def step(self, x_t: Tensor, state: MemoryState) -> tuple[Tensor, MemoryState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _remembered(self, x: Tensor, before: Tensor, positions: Tensor) -> Store:
        keys = F.normalize(self._heads(self.k_proj(before)), dim=-1)
        return Store(keys, self._heads(self.v_proj(x)), torch.where(positions < self.shift, -1, positions))

    def _read(self, x: Tensor, parts: list[Store], positions: Tensor) -> Tensor:
        q = F.normalize(self._heads(self.q_proj(x)), dim=-1).to(parts[-1].keys.dtype)
        scale = self.log_scale.exp()
        if self._is_long(parts[0]):
            likely = self._index.candidates(parts[0], q, self.k)
            y = attend_to_candidates(q, parts, positions, likely, scale=scale, k=self.k)
        else:
            y = attend_to_nearest(q, parts, positions, scale=scale, k=self.k, window=self.window)
        gate = torch.sigmoid(self.gate_proj(x)).transpose(1, 2).unsqueeze(-1)
        return cast("Tensor", self.out_proj((gate * y.to(x.dtype)).transpose(1, 2).flatten(2)))

    def _is_long(self, settled: Store) -> bool:
        most = self.approximate_above
        return most is not None and settled.n_slots > most and not torch.is_grad_enabled()

    def _heads(self, x: Tensor) -> Tensor:
        """Turn (B, L, H K) into (B, H, L, K)."""
        return x.reshape(*x.shape[:2], self.n_heads, self.head_dim).transpose(1, 2)


def _check(
    d_model: int, n_heads: int, head_dim: int | None, sizes: dict[str, int | None], shift: int
) -> None:
    for name, size in {"d_model": d_model, "n_heads": n_heads, "head_dim": head_dim, **sizes}.items():
        if size is not None and size < 1:
            raise ArgumentError(f"memory-layer: {name} is {size}, allowed is >= 1")
    if shift < 0:
        raise ArgumentError(f"memory-layer: shift is {shift}, allowed is >= 0")
    if sizes["window"] is not None and sizes["approximate_above"] is not None:
        raise ArgumentError(
            "memory-layer: window and approximate_above are both given, allowed is one: what a window keeps "
            "is compared one by one"
        )
    if head_dim is None and d_model % n_heads:
        raise ArgumentError(
            f"memory-layer: n_heads is {n_heads}, allowed is a divisor of d_model={d_model}; or give head_dim"
        )


def _check_inputs(x: Tensor, d_model: int) -> None:
    if x.dim() != 3 or x.shape[-1] != d_model or not x.is_floating_point():
        raise ArgumentError(
            f"memory-layer: x has shape {tuple(x.shape)} and dtype {x.dtype}, "
            f"allowed is a floating (B, L, d_model={d_model})"
        )
