"""The state-space duality layer of Dao and Gu (2024), Mamba-2, arXiv:2405.21060."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_dt_range
from helix_ssm.layers.grouped_heads import choose_head_dim
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.short_conv import short_conv
from helix_ssm.layers.step_sizes import initial_dt_bias
from helix_ssm.ops import rms_norm, ssd_scan


class Mamba2State(NamedTuple):
    """What Mamba2 carries from token to token.

    Attributes:
        conv: The last d_conv - 1 inputs of the convolution, (B, d_conv - 1, d_inner + 2 n_groups d_state).
        ssm: The recurrence's state h, (B, n_heads, head_dim, d_state), float32 or wider.
    """

    conv: Tensor
    ssm: Tensor


class Mamba2(nn.Module):
    """Mamba-2 block: a selective recurrence of heads that each decay by one number a token.

    Figure 6 (right) and sections 5 to 7 of the paper. With d_inner = expand * d_model, for each token
    z_t, (x_t, B_t, C_t), dt_t = in_proj(u_t); x, B, C = silu(conv1d(x, B, C));
    delta_t = softplus(dt_t + dt_bias); in each head, with A = -exp(A_log),
    h_t = exp(delta_t A) h_{t-1} + delta_t x_t B_t^T and y_t = h_t C_t + D x_t;
    then out_proj(norm(y_t silu(z_t))), an RMS norm in each group of channels. Heads of a group share B
    and C. Parameters bear the published model's names, so that its weights load as they are.

    Args:
        d_model: Width D of input and output.
        d_state: States N for each inner channel.
        d_conv: Width of the causal convolution, in tokens.
        expand: Inner channels for each channel of the model.
        head_dim: Channels P of a head; None means the most, up to 64, that divide d_inner / n_groups.
        n_groups: Groups G of heads, each with a B and a C of its own, and of channels that are normalised.
        dt_min: Smallest initial delta.
        dt_max: Largest initial delta.
        dt_init_floor: What smaller initial deltas are raised to.
        dt_limit: Smallest and largest delta at any time; None means any.
        A_init_range: Smallest and largest initial -A, which begins uniform.
        conv_bias: Whether the convolution has a bias.
        bias: Whether in_proj and out_proj have biases.
        norm_eps: Added to the mean square in the norm.

    Raises:
        ArgumentError: A size is below 1, heads or groups do not divide what they are to divide, or a
            range is not one.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        d_conv: int = 4,
        expand: int = 2,
        head_dim: int | None = None,
        n_groups: int = 1,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        dt_limit: tuple[float, float] | None = None,
        A_init_range: tuple[float, float] = (1.0, 16.0),
        conv_bias: bool = True,
        bias: bool = False,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        sizes = {"d_model": d_model, "d_state": d_state, "d_conv": d_conv, "expand": expand}
        for name, size in {**sizes, "n_groups": n_groups}.items():
            check_at_least("mamba2", name, size, 1)
        check_at_least("mamba2", "norm_eps", norm_eps, 0)
        check_dt_range("mamba2", dt_min, dt_max)
        _check_ranges(dt_limit, A_init_range)
        self.d_model, self.d_state, self.d_conv, self.n_groups = d_model, d_state, d_conv, n_groups
        self.dt_limit, self.norm_eps, self.bias = dt_limit, norm_eps, bias
        self.d_inner = expand * d_model
        self.head_dim = choose_head_dim("mamba2", self.d_inner, n_groups, head_dim)
        self.n_heads = self.d_inner // self.head_dim
        d_conv_in = self.d_inner + 2 * n_groups * d_state
        self._parts = [self.d_inner, d_conv_in, self.n_heads]
        self.in_proj = nn.Linear(d_model, sum(self._parts), bias=bias)
        self.conv1d = nn.Conv1d(d_conv_in, d_conv_in, d_conv, groups=d_conv_in, bias=conv_bias)
        dt_bias = initial_dt_bias(self.n_heads, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_init_floor)
        self.dt_bias = without_weight_decay(nn.Parameter(dt_bias))
        A_log = torch.empty(self.n_heads).uniform_(*A_init_range).log()
        self.A_log = without_weight_decay(nn.Parameter(A_log))
        self.D = without_weight_decay(nn.Parameter(torch.ones(self.n_heads)))
        self.norm = nn.RMSNorm(self.d_inner, eps=norm_eps)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=bias)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self._run(x, None, cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Mamba2State:
        """Return the state before the first token: zeros."""
        device = self.D.device if device is None else device
        dtype = self.D.dtype if dtype is None else dtype
        conv = torch.zeros(batch_size, self.d_conv - 1, self._parts[1], device=device, dtype=dtype)
        ssm = torch.zeros(batch_size, self.n_heads, self.head_dim, self.d_state, device=device, dtype=dtype)
        return Mamba2State(conv, at_least_float32(ssm))

    def extend(
        self, x: Tensor, state: Mamba2State, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Mamba2State]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        With `cu_seqlens`, x (1, T, D) holds the chunks of n sequences, and the state their n rows.
        """
        y, after = self._run(x, state, cu_seqlens)
        return y, after._replace(conv=after.conv.to(state.conv.dtype))

    def step(self, x_t: Tensor, state: Mamba2State) -> tuple[Tensor, Mamba2State]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _run(
        self, x: Tensor, state: Mamba2State | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, Mamba2State]:
        z, mixed, dt = self._project(x)
        before = None if state is None else state.conv
        mixed, conv = short_conv(self.conv1d, mixed, before, activation="silu", cu_seqlens=cu_seqlens)
        d_projection = self.n_groups * self.d_state
        u, B, C = torch.split(mixed, [self.d_inner, d_projection, d_projection], dim=-1)
        y, ssm = ssd_scan(
            torch.unflatten(u, -1, (self.n_heads, self.head_dim)),
            dt,
            -torch.exp(at_least_float32(self.A_log)),
            torch.unflatten(B, -1, (self.n_groups, self.d_state)),
            torch.unflatten(C, -1, (self.n_groups, self.d_state)),
            D=self.D,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            dt_limit=self.dt_limit,
            initial_state=None if state is None else state.ssm,
            return_final_state=True,
            cu_seqlens=cu_seqlens,
        )
        y = rms_norm(
            y.flatten(2),
            self.norm.weight,
            self.norm_eps,
            z=z,
            group_size=self.d_inner // self.n_groups,
            norm_before_gate=False,
        )
        return cast("Tensor", self.out_proj(y)), Mamba2State(conv, ssm)

    def _project(self, x: Tensor) -> list[Tensor]:
        """Return z (B, L, d_inner), the convolution's inputs and dt (B, L, n_heads), all contiguous.

        Products with parts of one weight: splitting one product's output would give views whose rows lie
        apart, and every op after it would have to copy.
        """
        check_chunk("mamba2", x, self.d_model)
        weights = torch.split(self.in_proj.weight, self._parts)
        biases = torch.split(self.in_proj.bias, self._parts) if self.bias else [None] * len(weights)
        return [F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True)]


def _check_ranges(dt_limit: tuple[float, float] | None, A_init_range: tuple[float, float]) -> None:
    if dt_limit is not None and not 0 <= dt_limit[0] <= dt_limit[1]:
        raise ArgumentError(f"mamba2: dt_limit is {dt_limit!r}, allowed is 0 <= smallest <= largest")
    if not 0 < A_init_range[0] <= A_init_range[1]:
        raise ArgumentError(f"mamba2: A_init_range is {A_init_range!r}, allowed is 0 < smallest <= largest")
