"""The gated delta rule layer of Yang, Kautz and Hatamizadeh (2024), Gated DeltaNet, arXiv:2412.06464."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.heads import choose_heads
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.rms_norm import RMSNorm
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.layers.step_sizes import initial_dt_bias
from helix_ssm.ops import gated_delta_rule, rms_norm

_UNIT_EPS = 1e-6


class GatedDeltaNetState(NamedTuple):
    """What GatedDeltaNet carries from token to token.

    Attributes:
        q_conv: The last d_conv - 1 inputs of the queries' convolution, (B, d_conv - 1, H K).
        k_conv: Those of the keys' convolution, (B, d_conv - 1, H K).
        v_conv: Those of the values' convolution, (B, d_conv - 1, H V).
        memory: What each head holds (B, H, K, V), float32 or wider.
    """

    q_conv: Tensor
    k_conv: Tensor
    v_conv: Tensor
    memory: Tensor


class GatedDeltaNet(nn.Module):
    """Gated DeltaNet block: a memory in each head that decays, and whose writes correct what it held.

    Section 3.4 and figure 1 of the paper. For each token x_t, q, k, v = silu(conv1d(proj(x))); queries and
    keys of each head are scaled to length 1; beta_t = sigmoid(b_proj(x_t));
    g_t = -exp(A_log) softplus(a_proj(x_t) + dt_bias);
    S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T, o_t = S_t^T q_t / sqrt(K);
    y_t = out_proj(norm(o_t) silu(g_proj(x_t))), with an RMS norm over each head.
    Parameters bear the names of the authors' model, but that its o_proj is out_proj here.

    Args:
        d_model: Width D of input and output.
        n_heads: Number of heads H; None means d_model / head_dim.
        head_dim: Width K of a head's queries and keys; None means d_model / n_heads or, where n_heads is
            None too, the widest up to 64 that divides d_model.
        expand_v: Width V of a head's values, in units of head_dim.
        d_conv: Width of the causal convolutions, in tokens.
        gate: Whether a gate on the output follows the norm.
        allow_neg_eigval: Whether beta reaches to 2, so that a write can turn what its key held around
            (Grazzi et al. 2024, arXiv:2411.12537).

    Raises:
        ArgumentError: A size is below 1, the heads do not divide d_model, or head_dim * expand_v is no
            whole number.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int | None = None,
        head_dim: int | None = None,
        expand_v: float = 2.0,
        d_conv: int = 4,
        gate: bool = True,
        allow_neg_eigval: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.k_dim = choose_heads("gated-deltanet", d_model, n_heads, head_dim)
        check_at_least("gated-deltanet", "d_conv", d_conv, 1)
        self.v_dim = round(self.k_dim * expand_v)
        if self.v_dim < 1 or not math.isclose(self.v_dim, self.k_dim * expand_v):
            raise ArgumentError(
                f"gated-deltanet: expand_v is {expand_v!r}, allowed is what makes whole values of "
                f"head_dim={self.k_dim}"
            )
        self.d_model, self.d_conv = d_model, d_conv
        self.max_beta = 2.0 if allow_neg_eigval else 1.0
        d_keys, d_values = self.n_heads * self.k_dim, self.n_heads * self.v_dim
        self.q_proj = nn.Linear(d_model, d_keys, bias=False)
        self.k_proj = nn.Linear(d_model, d_keys, bias=False)
        self.v_proj = nn.Linear(d_model, d_values, bias=False)
        self.q_conv1d = nn.Conv1d(d_keys, d_keys, d_conv, groups=d_keys, bias=False)
        self.k_conv1d = nn.Conv1d(d_keys, d_keys, d_conv, groups=d_keys, bias=False)
        self.v_conv1d = nn.Conv1d(d_values, d_values, d_conv, groups=d_values, bias=False)
        self.a_proj = nn.Linear(d_model, self.n_heads, bias=False)
        self.b_proj = nn.Linear(d_model, self.n_heads, bias=False)
        self.A_log = without_weight_decay(nn.Parameter(torch.log(16 * (1 - torch.rand(self.n_heads)))))
        self.dt_bias = without_weight_decay(
            nn.Parameter(initial_dt_bias(self.n_heads, dt_min=1e-3, dt_max=0.1))
        )
        self.g_proj = nn.Linear(d_model, d_values, bias=False) if gate else None
        self.o_norm = RMSNorm(self.v_dim)
        self.out_proj = nn.Linear(d_values, d_model, bias=False)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> GatedDeltaNetState:
        """Return the state before the first token: zeros."""
        device = self.A_log.device if device is None else device
        dtype = self.A_log.dtype if dtype is None else dtype
        d_keys, d_values = self.n_heads * self.k_dim, self.n_heads * self.v_dim
        q_conv, k_conv, v_conv = (
            torch.zeros(batch_size, self.d_conv - 1, width, device=device, dtype=dtype)
            for width in (d_keys, d_keys, d_values)
        )
        memory = torch.zeros(batch_size, self.n_heads, self.k_dim, self.v_dim, device=device, dtype=dtype)
        return GatedDeltaNetState(q_conv, k_conv, v_conv, at_least_float32(memory))

    def extend(
        self, x: Tensor, state: GatedDeltaNetState, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, GatedDeltaNetState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        y, (*convs, memory) = self._run(x, state, cu_seqlens)
        q_conv, k_conv, v_conv = (conv.to(state.q_conv.dtype) for conv in convs)
        return y, GatedDeltaNetState(q_conv, k_conv, v_conv, memory)

    def step(self, x_t: Tensor, state: GatedDeltaNetState) -> tuple[Tensor, GatedDeltaNetState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(
        self, x: Tensor, state: GatedDeltaNetState | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, GatedDeltaNetState]:
        check_chunk("gated-deltanet", x, self.d_model)
        before = (None,) * 4 if state is None else state
        convolve = partial(short_conv, activation="silu", cu_seqlens=cu_seqlens)
        q, q_conv = convolve(self.q_conv1d, self.q_proj(x), before[0])
        k, k_conv = convolve(self.k_conv1d, self.k_proj(x), before[1])
        v, v_conv = convolve(self.v_conv1d, self.v_proj(x), before[2])
        g, beta = self._gates(x)
        o, memory = gated_delta_rule(
            _unit(self._heads(q)),
            _unit(self._heads(k)),
            self._heads(v),
            g,
            beta,
            initial_state=before[3],
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        gate = None if self.g_proj is None else self._heads(self.g_proj(x))
        o = rms_norm(o, self.o_norm.weight, self.o_norm.eps, z=gate)
        return self.out_proj(o.flatten(2)), GatedDeltaNetState(q_conv, k_conv, v_conv, memory)

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the decay and the strength of the write, each (B, L, H)."""
        dt = F.softplus(at_least_float32(self.a_proj(x)) + at_least_float32(self.dt_bias))
        beta = self.max_beta * torch.sigmoid(at_least_float32(self.b_proj(x)))
        return -torch.exp(at_least_float32(self.A_log)) * dt, beta

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, x.shape[2] // self.n_heads)


def _unit(x: Tensor) -> Tensor:
    """Scale x (..., K) to length 1, in float32 or wider; what is near zero stays so."""
    x = at_least_float32(x)
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + _UNIT_EPS)
