"""The selective state-space layer of Gu and Dao (2023), Mamba, arXiv:2312.00752."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers._check import check_dt_range
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.layers.step_sizes import initial_dt_bias
from helix_ssm.ops import selective_scan


class MambaState(NamedTuple):
    """What Mamba carries from token to token.

    Attributes:
        conv: The last d_conv - 1 inputs of the convolution, (B, d_conv - 1, d_inner).
        ssm: The recurrence's state h, (B, d_inner, d_state), float32 or wider.
    """

    conv: Tensor
    ssm: Tensor


class Mamba(nn.Module):
    """Mamba block: gated, convolved, then a scan whose step, input and output depend on the token.

    Figure 3 and Algorithm 2 (S6) of the paper. With d_inner = expand * d_model, for each token
    u_t, z_t = in_proj(x_t); u = silu(conv1d(u)); dt_t, B_t, C_t = x_proj(u_t);
    delta_t = softplus(dt_proj(dt_t)); h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;
    y_t = out_proj((C_t h_t + D u_t) silu(z_t)).
    Parameters bear the published model's names, so that its weights load as they are.

    Args:
        d_model: Width D of input and output.
        d_state: States N for each inner channel.
        d_conv: Width of the causal convolution, in tokens.
        expand: Inner channels for each channel of the model.
        dt_rank: Rank of the projection to delta; None means d_model / 16, rounded up.
        dt_min: Smallest initial delta.
        dt_max: Largest initial delta.
        conv_bias: Whether the convolution has a bias.
        bias: Whether in_proj and out_proj have biases.
        bcdt_rms_eps: Divide B_t, C_t and dt_t by their root mean squares, with this added to the mean
            squares, as Falcon-Mamba does (Zuo et al. 2024, arXiv:2410.05355); None means not to.

    Raises:
        ArgumentError: A size is below 1, dt_min and dt_max are not 0 < dt_min <= dt_max, or bcdt_rms_eps
            is negative.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        conv_bias: bool = True,
        bias: bool = False,
        bcdt_rms_eps: float | None = None,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        for name, size in sizes.items():
            check_at_least("mamba", name, size, 1)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        check_dt_range("mamba", dt_min, dt_max)
        if bcdt_rms_eps is not None:
            check_at_least("mamba", "bcdt_rms_eps", bcdt_rms_eps, 0)
        self.bias, self.bcdt_rms_eps = bias, bcdt_rms_eps
        self.d_inner = expand * d_model
        self.dt_rank = math.ceil(d_model / 16) if dt_rank is None else dt_rank
        check_at_least("mamba", "dt_rank", self.dt_rank, 1)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=bias)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner, bias=conv_bias)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        A_log = torch.arange(1, d_state + 1.0).log().repeat(self.d_inner, 1)
        self.A_log = without_weight_decay(nn.Parameter(A_log))
        self.D = without_weight_decay(nn.Parameter(torch.ones(self.d_inner)))
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)
        _init_dt_(self.dt_proj, dt_min=dt_min, dt_max=dt_max)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """Return the state before the first token: zeros."""
        device = self.D.device if device is None else device
        dtype = self.D.dtype if dtype is None else dtype
        conv = torch.zeros(batch_size, self.d_conv - 1, self.d_inner, device=device, dtype=dtype)
        ssm = torch.zeros(batch_size, self.d_inner, self.d_state, device=device, dtype=dtype)
        return MambaState(conv, at_least_float32(ssm))

    def extend(
        self, x: Tensor, state: MambaState, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, MambaState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        With `cu_seqlens`, x (1, T, D) holds the chunks of n sequences, and the state their n rows.
        """
        y, after = self._run(x, state, cu_seqlens)
        return y, after._replace(conv=after.conv.to(state.conv.dtype))

    def step(self, x_t: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(
        self, x: Tensor, state: MambaState | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, MambaState]:
        u, z = self._project(x)
        before = None if state is None else state.conv
        u, conv = short_conv(self.conv1d, u, before, activation="silu", cu_seqlens=cu_seqlens)
        delta, B, C = self._selection(u)
        y, ssm = selective_scan(
            u,
            delta,
            self._A(),
            B,
            C,
            D=self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            initial_state=None if state is None else state.ssm,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        return cast("Tensor", self.out_proj(y)), MambaState(conv, ssm)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the inner channels u and the gate z, each (B, L, d_inner) and contiguous.

        Two products with halves of one weight: splitting one product's output would give views whose
        rows lie 2 * d_inner apart, and every op after it would have to copy.
        """
        check_chunk("mamba", x, self.d_model)
        u_weight, z_weight = self.in_proj.weight.chunk(2)
        if not self.bias:
            return F.linear(x, u_weight), F.linear(x, z_weight)
        u_bias, z_bias = self.in_proj.bias.chunk(2)
        return F.linear(x, u_weight, u_bias), F.linear(x, z_weight, z_bias)

    def _selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return delta before bias and softplus (B, L, d_inner), and B and C (B, L, d_state)."""
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        if self.bcdt_rms_eps is not None:
            dt, B, C = (_scale_to_unit(projected, self.bcdt_rms_eps) for projected in (dt, B, C))
        return F.linear(dt, self.dt_proj.weight), B, C

    def _A(self) -> Tensor:
        return -torch.exp(at_least_float32(self.A_log))


@torch.no_grad()
def _init_dt_(dt_proj: nn.Linear, *, dt_min: float, dt_max: float) -> None:
    """Set dt_proj so that softplus of its output begins log-uniform in [dt_min, dt_max].

    Section 3.6 of the paper; the weight is uniform with the variance that its fan-in keeps.
    """
    bound = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -bound, bound)
    dt_proj.bias.copy_(initial_dt_bias(dt_proj.out_features, dt_min=dt_min, dt_max=dt_max))


def _scale_to_unit(x: Tensor, eps: float) -> Tensor:
    """Divide x (..., N) by its root mean square, taken in float32 or wider."""
    return F.rms_norm(at_least_float32(x), x.shape[-1:], eps=eps).to(x.dtype)
