"""The selective state-space layer of Gu and Dao (2023), Mamba, arXiv:2312.00752."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.ops import causal_conv1d, selective_scan


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

    Raises:
        ArgumentError: A size is below 1, or dt_min and dt_max are not 0 < dt_min <= dt_max.
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
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        for name, size in sizes.items():
            check_at_least("mamba", name, size, 1)
        self.d_model, self.d_state, self.d_conv = d_model, d_state, d_conv
        self.bias = bias
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
        init_dt_(self.dt_proj, dt_min=dt_min, dt_max=dt_max)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        u, z = self._project(x)
        u = cast("Tensor", causal_conv1d(u, self._conv_weight(), self.conv1d.bias, activation="silu"))
        delta, B, C = self._selection(u)
        y = selective_scan(
            u, delta, self._A(), B, C, D=self.D, z=z, delta_bias=self.dt_proj.bias, delta_softplus=True
        )
        return cast("Tensor", self.out_proj(y))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> MambaState:
        """Return the state before the first token: zeros."""
        device = self.D.device if device is None else device
        dtype = self.D.dtype if dtype is None else dtype
        conv = torch.zeros(batch_size, self.d_conv - 1, self.d_inner, device=device, dtype=dtype)
        ssm = torch.zeros(batch_size, self.d_inner, self.d_state, device=device, dtype=dtype)
        return MambaState(conv, at_least_float32(ssm))

    def extend(self, x: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state."""
        u, z = self._project(x)
        u, conv = causal_conv1d(
            u,
            self._conv_weight(),
            self.conv1d.bias,
            activation="silu",
            initial_state=state.conv,
            return_final_state=True,
        )
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
            initial_state=state.ssm,
            return_final_state=True,
        )
        return self.out_proj(y), MambaState(conv.to(state.conv.dtype), ssm)

    def step(self, x_t: Tensor, state: MambaState) -> tuple[Tensor, MambaState]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

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

    def _conv_weight(self) -> Tensor:
        return self.conv1d.weight.squeeze(1)

    def _selection(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return delta before bias and softplus (B, L, d_inner), and B and C (B, L, d_state)."""
        dt, B, C = self.x_proj(u).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        return F.linear(dt, self.dt_proj.weight), B, C

    def _A(self) -> Tensor:
        return -torch.exp(at_least_float32(self.A_log))


@torch.no_grad()
def init_dt_(dt_proj: nn.Linear, *, dt_min: float, dt_max: float, dt_floor: float = 1e-4) -> None:
    """Set dt_proj so that softplus of its output begins log-uniform in [dt_min, dt_max].

    Section 3.6 of the paper: delta's bias is the inverse softplus of a log-uniform draw, and the weight
    is uniform with the variance that its fan-in keeps.

    Raises:
        ArgumentError: Not 0 < dt_min <= dt_max.
    """
    if not 0 < dt_min <= dt_max:
        raise ArgumentError(
            f"mamba: dt_min is {dt_min!r} and dt_max {dt_max!r}, allowed is 0 < dt_min <= dt_max"
        )
    bound = dt_proj.in_features**-0.5
    nn.init.uniform_(dt_proj.weight, -bound, bound)
    dt = torch.empty_like(dt_proj.bias).uniform_(math.log(dt_min), math.log(dt_max)).exp().clamp(min=dt_floor)
    dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))
