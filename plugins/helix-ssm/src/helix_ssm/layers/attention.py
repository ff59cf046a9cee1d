"""Softmax attention with grouped queries, rotary positions and an optional sliding window."""

from __future__ import annotations

from typing import Literal, cast, get_args

import torch
from torch import Tensor, nn

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_choice, check_even
from helix_ssm.layers.heads import choose_heads
from helix_ssm.layers.kv_cache import AttentionState, Cache, empty_cache
from helix_ssm.layers.packing import pack, unpack
from helix_ssm.layers.protocol import check_at_least, check_chunk
from helix_ssm.layers.rms_norm import RMSNorm
from helix_ssm.layers.rotary import rotate
from helix_ssm.layers.softmax_attention import attend, attend_after
from helix_ssm.ops._check import check_packed, segments

Positions = Literal["rotary", "none"]


class Attention(nn.Module):
    """Multi-head attention: each token reads from those before it, weighted by softmax(q kᵀ / √K).

    Vaswani et al. (2017), arXiv:1706.03762, equation 1, with keys and values that groups of heads share
    (Ainslie et al. 2023, arXiv:2305.13245), rotary positions (Su et al. 2021, arXiv:2104.09864), a
    sliding window (Beltagy et al. 2020, arXiv:2004.05150, causal as in Mistral 7B, arXiv:2310.06825,
    section 2), and norms of queries and keys for stable training (Dehghani et al. 2023,
    arXiv:2302.05442, section 2, by root mean square for each head).
    The weights are laid out as Llama's, whose o_proj is out_proj here.

    Args:
        d_model: Width D of input and output.
        n_heads: Number of query heads H; None for as many as head_dim fits into d_model.
        n_kv_heads: Number of key and value heads, a divisor of n_heads; None means n_heads.
        head_dim: Width K of a head. None means d_model / n_heads or, where n_heads is None too, the
            largest even divisor of d_model up to 64.
        causal: Whether a token sees none after it. An encoder's attention, causal=False, keeps no state.
        window: How many tokens a token sees, itself included; None for all.
        positions: "rotary", or "none" where order is to come from the mask alone or from other layers.
        rope_theta: Base of the rotary frequencies.
        qk_norm: Whether queries and keys are normalised before they are rotated.
        bias: Whether the four maps have biases.

    Raises:
        ArgumentError: A size is below 1 or does not divide what it must, there are no such positions,
            rope_theta is not above 0, rotary positions meet an odd head_dim, or a window causal=False.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        n_kv_heads: int | None = None,
        head_dim: int | None = None,
        causal: bool = True,
        window: int | None = None,
        positions: Positions = "rotary",
        rope_theta: float = 10000.0,
        qk_norm: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.d_model, self.causal, self.window = d_model, causal, window
        self.positions, self.rope_theta = positions, rope_theta
        self.n_heads, self.head_dim = choose_heads("attention", d_model, n_heads, head_dim, prefer_even=True)
        self.n_kv_heads = self.n_heads if n_kv_heads is None else n_kv_heads
        self._check()
        d_inner, d_kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        self.q_proj = nn.Linear(d_model, d_inner, bias=bias)
        self.k_proj = nn.Linear(d_model, d_kv, bias=bias)
        self.v_proj = nn.Linear(d_model, d_kv, bias=bias)
        self.q_norm = RMSNorm(self.head_dim) if qk_norm else None
        self.k_norm = RMSNorm(self.head_dim) if qk_norm else None
        self.out_proj = nn.Linear(d_inner, d_model, bias=bias)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or sequences packed into (1, T, D), to the same shape."""
        check_chunk("attention", x, self.d_model)
        check_packed(cu_seqlens, x.shape[0])
        bounds = [(0, x.shape[1])] if cu_seqlens is None else segments(cu_seqlens, x.shape[1])
        positions = torch.cat([torch.arange(end - start, device=x.device) for start, end in bounds])
        q, k, v = self._project(x, positions.unsqueeze(0))
        parts = [
            attend(*(t[:, :, start:end] for t in (q, k, v)), causal=self.causal, window=self.window)
            for start, end in bounds
        ]
        return self._merge(torch.cat(parts, dim=2), x)

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> AttentionState:
        """Return the state before the first token: empty caches.

        Raises:
            ArgumentError: The attention is not causal, so that what comes later would change the past.
        """
        if not self.causal:
            raise ArgumentError("attention: causal is False, allowed is True where a state is kept")
        like = self.out_proj.weight.new_empty(0, device=device, dtype=dtype)
        n_slots = 0 if self.window is None else self.window - 1
        settled, recent = (
            empty_cache(like, (batch_size, self.n_kv_heads, n, self.head_dim)) for n in (0, n_slots)
        )
        length = torch.zeros(batch_size, dtype=torch.int64, device=like.device)
        return AttentionState(settled, recent, length)

    def extend(
        self, x: Tensor, state: AttentionState, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, AttentionState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        With `cu_seqlens`, x (1, T, D) holds a chunk for each of the state's n rows.

        Raises:
            ArgumentError: The state has another number of rows.
        """
        check_chunk("attention", x, self.d_model)
        check_packed(cu_seqlens, x.shape[0])
        n_rows = x.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        if n_rows != len(state.length):
            raise ArgumentError(f"attention: state has {len(state.length)} rows, allowed are {n_rows}")
        if cu_seqlens is None:
            steps = torch.arange(x.shape[1], device=x.device)
            return self._go_on(x, state, state.length.unsqueeze(1) + steps, realign=False)
        lengths = [end - start for start, end in segments(cu_seqlens, x.shape[1])]
        steps = torch.arange(max(lengths), device=x.device)
        mask = steps < torch.tensor(lengths, device=x.device).unsqueeze(1)
        positions = torch.where(mask, state.length.unsqueeze(1) + steps, -1)
        y, state = self._go_on(unpack(x, mask), state, positions, realign=True)
        return pack(y, mask)[0], state

    def step(self, x_t: Tensor, state: AttentionState) -> tuple[Tensor, AttentionState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _go_on(
        self, x: Tensor, state: AttentionState, positions: Tensor, *, realign: bool
    ) -> tuple[Tensor, AttentionState]:
        q, k, v = (t.to(state.recent.keys.dtype) for t in self._project(x, positions))
        chunk = Cache(k, v, positions)
        y = attend_after((state.settled, state.recent), chunk, q, positions, window=self.window)
        return self._merge(y, x), state.append(chunk, window=self.window, realign=realign)

    def _project(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (B, H, L, K), keys and values, rotated to their positions (B or 1, L)."""
        q = self._heads(self.q_proj(x), self.q_norm)
        k = self._heads(self.k_proj(x), self.k_norm)
        v = self._heads(self.v_proj(x), None)
        if self.positions == "none":
            return q, k, v
        q, k = (rotate(t, positions.unsqueeze(1), theta=self.rope_theta) for t in (q, k))
        return q, k, v

    def _heads(self, x: Tensor, norm: RMSNorm | None) -> Tensor:
        """Turn (B, L, H * K) into heads (B, H, L, K), each normalised if so asked."""
        heads = x.reshape(*x.shape[:2], x.shape[2] // self.head_dim, self.head_dim)
        if norm is not None:
            heads = cast("Tensor", norm(heads.flatten(1, 2))).view_as(heads)
        return heads.transpose(1, 2)

    def _merge(self, y: Tensor, x: Tensor) -> Tensor:
        return cast("Tensor", self.out_proj(y.transpose(1, 2).flatten(2).to(x.dtype)))

    def _check(self) -> None:
        sizes = {"n_heads": self.n_heads, "n_kv_heads": self.n_kv_heads, "head_dim": self.head_dim}
        for name, size in sizes.items():
            check_at_least("attention", name, size, 1)
        if self.n_heads % self.n_kv_heads:
            raise ArgumentError(
                f"attention: n_kv_heads is {self.n_kv_heads}, allowed is a divisor of n_heads={self.n_heads}"
            )
        _check_positions(self.positions, self.rope_theta, self.head_dim)
        if self.window is not None:
            check_at_least("attention", "window", self.window, 1)
            if not self.causal:
                raise ArgumentError(f"attention: window is {self.window}, allowed is None with causal=False")


def _check_positions(positions: str, rope_theta: float, head_dim: int) -> None:
    check_choice("attention", "positions", positions, get_args(Positions))
    if not rope_theta > 0:
        raise ArgumentError(f"attention: rope_theta is {rope_theta!r}, allowed is > 0")
    if positions == "rotary":
        check_even("attention", "head_dim", head_dim, " where positions are rotary")
