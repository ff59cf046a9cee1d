"""The gated linear attention layer of Yang et al. (2023), GLA, arXiv:2312.06635."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk
from helix_ssm.layers.rms_norm import RMSNorm
from helix_ssm.ops import gla, rms_norm


class GLA(nn.Module):
    """Gated linear attention: a memory in each head whose rows decay as the token says.

    Section 4.4 of the paper. For each token x_t, q, k, v = proj(x_t);
    g_t = logsigmoid(gk_proj(x_t)) / gate_logit_normalizer, of which gk_proj has a low rank;
    S_t = diag(exp(g_t)) S_{t-1} + k_t v_t^T, o_t = S_t^T q_t / sqrt(K) in each head;
    y_t = out_proj(norm(o_t) silu(g_proj(x_t))), with an RMS norm over each head, as in the authors' code
    (the paper says layer norm). The state is S (B, H, K, V), float32 or wider.
    Parameters bear the names of the authors' model, but that its o_proj is out_proj here, and its
    g_norm_swish_gate o_norm.

    Args:
        d_model: Width D of input and output.
        n_heads: Number of heads H.
        expand_k: Width H K of the queries and keys, in units of d_model.
        expand_v: Width H V of the values, in units of d_model.
        gate_low_rank_dim: Rank of the map to the gates.
        gate_logit_normalizer: What the gates' logarithms are divided by: the larger, the longer the memory.

    Raises:
        ArgumentError: A size is below 1, gate_logit_normalizer is not above 0, or the heads do not divide
            the width of the keys or values.
    """

    def __init__(
        self,
        d_model: int,
        *,
        n_heads: int = 4,
        expand_k: float = 0.5,
        expand_v: float = 1.0,
        gate_low_rank_dim: int = 16,
        gate_logit_normalizer: float = 16.0,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "n_heads": n_heads, "gate_low_rank_dim": gate_low_rank_dim}
        for name, size in sizes.items():
            check_at_least("gla", name, size, 1)
        if not gate_logit_normalizer > 0:
            raise ArgumentError(
                f"gla: gate_logit_normalizer is {gate_logit_normalizer!r}, allowed is a number above 0"
            )
        self.d_model, self.n_heads = d_model, n_heads
        self.gate_logit_normalizer = gate_logit_normalizer
        self.k_dim = _head_width(d_model, n_heads, "expand_k", expand_k)
        self.v_dim = _head_width(d_model, n_heads, "expand_v", expand_v)
        d_keys, d_values = n_heads * self.k_dim, n_heads * self.v_dim
        self.q_proj = nn.Linear(d_model, d_keys, bias=False)
        self.k_proj = nn.Linear(d_model, d_keys, bias=False)
        self.v_proj = nn.Linear(d_model, d_values, bias=False)
        self.gk_proj = nn.Sequential(
            nn.Linear(d_model, gate_low_rank_dim, bias=False), nn.Linear(gate_low_rank_dim, d_keys)
        )
        self.g_proj = nn.Linear(d_model, d_values, bias=False)
        self.o_norm = RMSNorm(self.v_dim)
        self.out_proj = nn.Linear(d_values, d_model, bias=False)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: zeros (B, H, K, V)."""
        weight = self.out_proj.weight
        device = weight.device if device is None else device
        dtype = weight.dtype if dtype is None else dtype
        state = torch.zeros(batch_size, self.n_heads, self.k_dim, self.v_dim, device=device, dtype=dtype)
        return at_least_float32(state)

    def extend(self, x: Tensor, state: Tensor, *, cu_seqlens: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        return self._run(x, state, cu_seqlens)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(self, x: Tensor, state: Tensor | None, cu_seqlens: Tensor | None) -> tuple[Tensor, Tensor]:
        check_chunk("gla", x, self.d_model)
        o, state = gla(
            self._heads(self.q_proj(x)),
            self._heads(self.k_proj(x)),
            self._heads(self.v_proj(x)),
            self._heads(self._log_gates(x)),
            initial_state=state,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        o = rms_norm(o, self.o_norm.weight, self.o_norm.eps, z=self._heads(self.g_proj(x)))
        return self.out_proj(o.flatten(2)), state

    def _log_gates(self, x: Tensor) -> Tensor:
        return F.logsigmoid(at_least_float32(self.gk_proj(x))) / self.gate_logit_normalizer

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.n_heads, x.shape[2] // self.n_heads)


def _head_width(d_model: int, n_heads: int, name: str, expand: float) -> int:
    """Return the width of a head where all heads together are `expand` times as wide as the model."""
    width = round(d_model * expand / n_heads)
    if width < 1 or not math.isclose(width * n_heads, d_model * expand):
        raise ArgumentError(
            f"gla: {name} is {expand!r}, allowed is what makes d_model * {name} a multiple of "
            f"n_heads={n_heads}; d_model is {d_model}"
        )
    return width
