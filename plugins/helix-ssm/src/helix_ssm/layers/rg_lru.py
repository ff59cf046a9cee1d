"""The recurrent block of De et al. (2024), Griffin, arXiv:2402.19427, with its unit RG-LRU."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_choice
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.ops import diagonal_scan
from helix_ssm.ops._check import n_states

FirstInput = Literal["scaled", "whole"]

_C = 8.0


class RGLRUState(NamedTuple):
    """What the block carries from token to token.

    Attributes:
        conv: The last d_conv - 1 inputs of the convolution, (B, d_conv - 1, d_rnn).
        h: The recurrence's state, (B, d_rnn), float32 or wider.
        fresh: Whether no token has come yet, (B,) bool.
    """

    conv: Tensor
    h: Tensor
    fresh: Tensor


class RGLRU(nn.Module):
    """Recurrent block: one branch convolved and through the unit RG-LRU, gated by GELU of another.

    Section 2.3 and figure 2: y = out_proj(rg_lru(conv1d(linear_x(x))) gelu(linear_y(x))), with the tanh
    form of GELU as in the published models. Parameters bear the names of RecurrentGemma's recurrent
    block, except that its linear_out is out_proj here.

    Args:
        d_model: Width D of input and output.
        d_rnn: States, the paper's D_RNN, a multiple of n_heads; None means 4/3 d_model, up to the next.
        n_heads: Blocks of the gates' block-diagonal weights.
        d_conv: Width of the causal convolution, in tokens.
        first_input: What becomes of a sequence's first input. "scaled": it is multiplied by
            sqrt(1 - a^2) like any other, as the paper's equation 4 says. "whole": it enters as it is, as
            RecurrentGemma and its weights have it.

    Raises:
        ArgumentError: A size is below 1, n_heads does not divide d_rnn, or there is no such first_input.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_rnn: int | None = None,
        n_heads: int = 16,
        d_conv: int = 4,
        first_input: FirstInput = "scaled",
    ) -> None:
        super().__init__()
        for name, size in {"d_model": d_model, "n_heads": n_heads, "d_conv": d_conv}.items():
            check_at_least("rg-lru", name, size, 1)
        d_rnn = math.ceil(4 * d_model / (3 * n_heads)) * n_heads if d_rnn is None else d_rnn
        check_at_least("rg-lru", "d_rnn", d_rnn, 1)
        if d_rnn % n_heads:
            raise ArgumentError(f"rg-lru: d_rnn is {d_rnn}, allowed is a multiple of n_heads = {n_heads}")
        self.d_model, self.d_rnn, self.d_conv = d_model, d_rnn, d_conv
        self.linear_x = nn.Linear(d_model, d_rnn)
        self.linear_y = nn.Linear(d_model, d_rnn)
        self.conv_1d = nn.Conv1d(d_rnn, d_rnn, d_conv, groups=d_rnn)
        self.rg_lru = RealGatedLRU(d_rnn, n_heads=n_heads, first_input=first_input)
        self.out_proj = nn.Linear(d_rnn, d_model)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or packed sequences (1, T, D), to the same shape."""
        return self.extend(x, self.init_state(n_states(cu_seqlens, x.shape[0])), cu_seqlens=cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> RGLRUState:
        """Return the state before the first token: zeros, and fresh."""
        device = self.out_proj.weight.device if device is None else device
        dtype = self.out_proj.weight.dtype if dtype is None else dtype
        conv = torch.zeros(batch_size, self.d_conv - 1, self.d_rnn, device=device, dtype=dtype)
        h = torch.zeros(batch_size, self.d_rnn, device=device, dtype=dtype)
        fresh = torch.ones(batch_size, device=device, dtype=torch.bool)
        return RGLRUState(conv, at_least_float32(h), fresh)

    def extend(
        self, x: Tensor, state: RGLRUState, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, RGLRUState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        check_chunk("rg-lru", x, self.d_model)
        u, conv = short_conv(self.conv_1d, self.linear_x(x), state.conv, cu_seqlens=cu_seqlens)
        first = _first_inputs(x.shape[1], state.fresh, cu_seqlens)
        h, last = self.rg_lru(u, state.h, first=first, cu_seqlens=cu_seqlens)
        y = self.out_proj(h.to(x.dtype) * F.gelu(self.linear_y(x), approximate="tanh"))
        fresh = _still_fresh(state.fresh, x.shape[1], cu_seqlens)
        return y, RGLRUState(conv.to(state.conv.dtype), last.to(state.h.dtype), fresh)

    def step(self, x_t: Tensor, state: RGLRUState) -> tuple[Tensor, RGLRUState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state


class RealGatedLRU(nn.Module):
    """RG-LRU: a linear recurrence whose decay and input are gated by the input (equations 1 to 4).

    r_t = sigmoid(W_a x_t + b_a), i_t = sigmoid(W_x x_t + b_x), log a_t = -8 softplus(Lambda) r_t, and
    h_t = a_t h_{t-1} + sqrt(1 - a_t^2) i_t x_t, with block-diagonal W_a and W_x. The published models' sign
    of Lambda is taken: larger forgets faster. It begins with a_t uniform in [0.9, 0.999] where r_t is 1, and
    the gates' weights with the variance that their fan-in keeps (section 2.4).

    Args:
        d_rnn: States.
        n_heads: Blocks of W_a and W_x.
        first_input: See `RGLRU`.
    """

    def __init__(self, d_rnn: int, *, n_heads: int, first_input: FirstInput) -> None:
        super().__init__()
        check_choice("rg-lru", "first_input", first_input, get_args(FirstInput))
        self.first_input = first_input
        block = d_rnn // n_heads
        decay = torch.empty(d_rnn).uniform_(0.9, 0.999)
        self.recurrent_param = without_weight_decay(nn.Parameter(torch.expm1(-decay.log() / _C).log()))
        self.input_gate_weight = nn.Parameter(torch.randn(n_heads, block, block) / math.sqrt(block))
        self.input_gate_bias = nn.Parameter(torch.zeros(n_heads, block))
        self.recurrent_gate_weight = nn.Parameter(torch.randn(n_heads, block, block) / math.sqrt(block))
        self.recurrent_gate_bias = nn.Parameter(torch.zeros(n_heads, block))

    def forward(
        self, x: Tensor, state: Tensor, *, first: Tensor, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Run the recurrence.

        Args:
            x: Inputs (B, L, d_rnn).
            state: State before the first token (B, d_rnn).
            first: Which tokens are the first of their sequence, (B, L) bool.
            cu_seqlens: Bounds of packed sequences.

        Returns:
            The states (B, L, d_rnn) and the last one (B, d_rnn), float32 or wider.
        """
        recurrent_gate = _block_diagonal(x, self.recurrent_gate_weight, self.recurrent_gate_bias)
        input_gate = _block_diagonal(x, self.input_gate_weight, self.input_gate_bias)
        log_a = -_C * F.softplus(at_least_float32(self.recurrent_param)) * torch.sigmoid(recurrent_gate)
        # 1 - a^2 without cancellation; kept off 0, where the root's gradient is infinite.
        scale = torch.expm1(2 * log_a).neg().clamp(min=torch.finfo(log_a.dtype).tiny).sqrt()
        if self.first_input == "whole":
            scale = scale.masked_fill(first.unsqueeze(-1), 1.0)
        inputs = scale * torch.sigmoid(input_gate) * at_least_float32(x)
        found = diagonal_scan(
            log_a.exp(), inputs, initial_state=state, return_final_state=True, cu_seqlens=cu_seqlens
        )
        return cast("tuple[Tensor, Tensor]", found)


def _block_diagonal(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map each of H blocks of x (B, L, D) by its own weight (H, D/H, D/H); float32 or wider."""
    blocks = x.view(*x.shape[:2], *bias.shape)
    return at_least_float32(torch.einsum("blhi,hij->blhj", blocks, weight) + bias).flatten(2)


def _first_inputs(seq_len: int, fresh: Tensor, cu_seqlens: Tensor | None) -> Tensor:
    """Return which tokens are the first of a fresh sequence, (B, L) bool, or (1, T) packed."""
    position = torch.arange(seq_len, device=fresh.device)
    if cu_seqlens is None:
        return fresh[:, None] & (position == 0)
    bounds = cu_seqlens.long()
    row = torch.searchsorted(bounds[1:], position, right=True)
    return (fresh[row] & (position == bounds[row]))[None]


def _still_fresh(fresh: Tensor, seq_len: int, cu_seqlens: Tensor | None) -> Tensor:
    """Return which sequences are fresh after a chunk: those that were and had no token in it."""
    if cu_seqlens is not None:
        return fresh & (cu_seqlens.diff() == 0)
    return torch.zeros_like(fresh) if seq_len else fresh.clone()
