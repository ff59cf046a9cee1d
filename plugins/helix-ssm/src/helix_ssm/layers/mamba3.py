"""The state-space layer of Lahoti, Li, Chen, Wang et al. (2026), Mamba-3, arXiv:2603.15569."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_ssm.layers._check import check_choice, check_dt_range, check_even
from helix_ssm.layers.grouped_heads import choose_head_dim
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.layers.sequences import Sequences
from helix_ssm.layers.step_sizes import initial_dt_bias
from helix_ssm.layers.trapezoidal import trapezoidal_scan
from helix_ssm.ops import rms_norm
from helix_ssm.ops._check import n_states

RateActivation = Literal["heavy-tail", "softplus"]

_NORM_EPS = 1e-5


class Mamba3State(NamedTuple):
    """What Mamba3 carries from token to token, all in float32 or wider but x.

    Attributes:
        angle: How far each head's pairs of states have turned, in [0, 2 pi), (B, n_heads, n_angles).
        ssm: The recurrence's state h, (B, n_heads, head_dim, d_state).
        B: The last token's input projections, turned, (B, rank, n_heads, d_state).
        x: The last token's inputs (B, n_heads, head_dim).
    """

    angle: Tensor
    ssm: Tensor
    B: Tensor
    x: Tensor


class Mamba3(nn.Module):
    """Mamba-3 block: Mamba-2's recurrence with the trapezoidal rule, turning states, and no convolution.

    Section 3 of the paper, and the authors' code where it is more exact. With d_inner = expand * d_model,
    z, x, B, C, dt, A, m, w = in_proj(u_t) for each token; dt = softplus(dt + dt_bias),
    A = -f(A), m = sigmoid(m). B and C pass an RMS norm, get a bias of each head's own, and each pair of
    their channels turns by theta_t = theta_{t-1} + pi tanh(w) dt, which is what a complex A would do to
    the state. Then h_t = e^(dt A) h_{t-1} + (1 - m) dt e^(dt A) x_{t-1} B_{t-1}^T + m dt x_t B_t^T
    (exponential-trapezoidal), y_t = h_t C_t + D x_t, and out_proj(y_t silu(z_t)).

    With `mimo_rank` R each token has R inputs x * mimo_x, R projections B and C, R gates z * mimo_z, and
    R outputs that mimo_o weighs into one; they share the state. Parameters bear the names of the authors'
    model. As there, neighbouring channels of B and C turn together, but with `mimo_rank` channel i and
    i + d_state / 2.

    Args:
        d_model: Width D of input and output.
        d_state: States N for each inner channel, even.
        expand: Inner channels for each channel of the model.
        head_dim: Channels P of a head; None means the most, up to 64, that divide d_inner / n_groups.
        n_groups: Groups of heads, each with a B and a C of its own.
        mimo_rank: Inputs and outputs R of a head and token; None for one of each, without mimo weights.
        rope_fraction: Part of the states that turns.
        dt_min: Smallest initial dt.
        dt_max: Largest initial dt.
        dt_init_floor: What smaller initial dts are raised to.
        A_floor: Smallest -A.
        A_activation: f: "softplus", or "heavy-tail", 1 + a for a >= 0 and 1 / (1 - a) below, by which the
            authors replaced it.
        outproj_norm: Whether an RMS norm in each head comes before the gate.

    Raises:
        ArgumentError: A size is below 1 or odd where it must be even, heads or groups do not divide what
            they are to divide, no pair of states would turn, or an activation or range is not one.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 128,
        expand: int = 2,
        head_dim: int | None = None,
        n_groups: int = 1,
        mimo_rank: int | None = None,
        rope_fraction: float = 0.5,
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
        dt_init_floor: float = 1e-4,
        A_floor: float = 1e-4,
        A_activation: RateActivation = "heavy-tail",
        outproj_norm: bool = False,
    ) -> None:
        super().__init__()
        self.rank = 1 if mimo_rank is None else mimo_rank
        sizes = {"d_model": d_model, "d_state": d_state, "expand": expand, "n_groups": n_groups}
        for name, size in {**sizes, "mimo_rank": self.rank}.items():
            check_at_least("mamba3", name, size, 1)
        check_even("mamba3", "d_state", d_state, "")
        check_dt_range("mamba3", dt_min, dt_max)
        check_at_least("mamba3", "A_floor", A_floor, 0)
        check_choice("mamba3", "A_activation", A_activation, get_args(RateActivation))
        self.n_angles = int(d_state * rope_fraction) // 2
        if not (rope_fraction <= 1 and self.n_angles >= 1):
            raise ArgumentError(
                f"mamba3: rope_fraction is {rope_fraction!r}, allowed is >= 2 / d_state = {2 / d_state:g}"
                " and <= 1"
            )
        self.d_model, self.d_state, self.n_groups = d_model, d_state, n_groups
        self.A_floor, self.A_activation = A_floor, A_activation
        self.d_inner = expand * d_model
        self.head_dim = choose_head_dim("mamba3", self.d_inner, n_groups, head_dim)
        self.n_heads = self.d_inner // self.head_dim
        d_projection = self.rank * n_groups * d_state
        small = [d_projection, d_projection, *[self.n_heads] * 3, self.n_angles]
        self._parts, self._small_parts = [self.d_inner, self.d_inner, sum(small)], small
        self.in_proj = nn.Linear(d_model, sum(self._parts), bias=False)
        dt_bias = initial_dt_bias(self.n_heads, dt_min=dt_min, dt_max=dt_max, dt_floor=dt_init_floor)
        self.dt_bias = without_weight_decay(nn.Parameter(dt_bias))
        self.B_norm, self.C_norm = (nn.RMSNorm(d_state, eps=_NORM_EPS) for _ in range(2))
        self.B_bias, self.C_bias = (
            nn.Parameter(torch.ones(self.n_heads, self.rank, d_state)) for _ in range(2)
        )
        self.D = without_weight_decay(nn.Parameter(torch.ones(self.n_heads)))
        weights = None if mimo_rank is None else torch.ones(self.n_heads, mimo_rank, self.head_dim)
        self.mimo_x = None if weights is None else nn.Parameter(weights / self.rank)
        self.mimo_z = None if weights is None else nn.Parameter(weights.clone())
        self.mimo_o = None if weights is None else nn.Parameter(weights / self.rank)
        self.norm = nn.RMSNorm(self.d_inner, eps=_NORM_EPS) if outproj_norm else None
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)

    def forward(self, x: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """Map x (B, L, D), or the sequences packed into x (1, T, D), to the same shape."""
        return self.extend(x, self.init_state(n_states(cu_seqlens, x.shape[0])), cu_seqlens=cu_seqlens)[0]

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Mamba3State:
        """Return the state before the first token: zeros."""
        device = self.D.device if device is None else device
        dtype = self.D.dtype if dtype is None else dtype

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(batch_size, *shape, device=device, dtype=dtype)

        return Mamba3State(
            angle=at_least_float32(zeros(self.n_heads, self.n_angles)),
            ssm=at_least_float32(zeros(self.n_heads, self.head_dim, self.d_state)),
            B=at_least_float32(zeros(self.rank, self.n_heads, self.d_state)),
            x=zeros(self.n_heads, self.head_dim),
        )

    def extend(
        self, x: Tensor, state: Mamba3State, *, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Mamba3State]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        With `cu_seqlens`, x (1, T, D) holds the chunks of n sequences, and the state their n rows.
        """
        check_chunk("mamba3", x, self.d_model)
        z, u, *small = self._project(x)
        B, C, dt, A, mix, turn = small
        sequences = Sequences(cu_seqlens)
        dt = F.softplus(at_least_float32(dt) + self.dt_bias)
        angle = self._angles(dt, turn, state.angle, sequences)
        B = self._turned(B, self.B_norm, self.B_bias, angle)
        C = self._turned(C, self.C_norm, self.C_bias, angle)
        inputs = _ranks(u, self.mimo_x)
        y, ssm = trapezoidal_scan(
            inputs,
            B,
            C,
            dt,
            dt * self._rate(A),
            torch.sigmoid(at_least_float32(mix)),
            state=state.ssm,
            last_x=_ranks(state.x.unsqueeze(1), self.mimo_x)[:, 0],
            last_B=state.B,
            cu_seqlens=cu_seqlens,
        )
        y = self._output(y + self.D.unsqueeze(-1) * inputs, z)
        after = Mamba3State(
            sequences.last(angle, state.angle),
            ssm,
            sequences.last(B, state.B),
            sequences.last(u, state.x).to(state.x.dtype),
        )
        return cast("Tensor", self.out_proj(y.flatten(2).to(x.dtype))), after

    def step(self, x_t: Tensor, state: Mamba3State) -> tuple[Tensor, Mamba3State]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state."""
        y, state = self.extend(x_t.unsqueeze(1), state)
        return y.squeeze(1), state

    def _project(self, x: Tensor) -> list[Tensor]:
        """Return z and x (B, L, H, P), and B, C, dt, A, the mix and the turns, (B, L, ...) each.

        The wide ones by products of their own, so that they are contiguous.
        """
        z, u, small = (F.linear(x, weight) for weight in torch.split(self.in_proj.weight, self._parts))
        heads = (self.n_heads, self.head_dim)
        parts = torch.split(small, self._small_parts, dim=-1)
        return [torch.unflatten(z, -1, heads), torch.unflatten(u, -1, heads), *parts]

    def _rate(self, a: Tensor) -> Tensor:
        """Return the decay rate A (B, L, H), negative."""
        a = at_least_float32(a)
        rate = F.softplus(a) if self.A_activation == "softplus" else a.clamp(min=0) + 1 / (1 - a.clamp(max=0))
        return -rate.clamp(min=self.A_floor)

    def _angles(self, dt: Tensor, turn: Tensor, before: Tensor, sequences: Sequences) -> Tensor:
        """Return how far each head's pairs of states have turned at each token (B, L, H, n_angles).

        Summed up in float64: over a million tokens sums reach 10⁵, of which float32 keeps two decimals.
        """
        turns = math.pi * torch.tanh(at_least_float32(turn)).unsqueeze(2) * dt.unsqueeze(-1)
        angles = sequences.running_sums(turns.double(), before.double())
        return angles.remainder(2 * math.pi).to(turns.dtype)

    def _turned(self, projection: Tensor, norm: nn.RMSNorm, bias: Tensor, angle: Tensor) -> Tensor:
        """Norm a projection (B, L, R G N), give each head its bias, and turn it; (B, L, R, H, N)."""
        ranks = torch.unflatten(projection, -1, (self.rank, self.n_groups, self.d_state))
        normed = at_least_float32(rms_norm(ranks, norm.weight, _NORM_EPS)).unsqueeze(4)
        biases = torch.unflatten(bias.transpose(0, 1), 1, (self.n_groups, -1))
        return _turn((normed + biases).flatten(3, 4), angle.unsqueeze(2), neighbours=self.mimo_x is None)

    def _output(self, y: Tensor, z: Tensor) -> Tensor:
        """Gate y (B, L, R, H, P), and weigh the ranks into one, (B, L, H, P)."""
        gate = _ranks(z, self.mimo_z)
        if self.norm is None:
            y = y * F.silu(gate)
        else:
            rows, weight = (y.flatten(3), gate.flatten(3)), self.norm.weight
            y = rms_norm(rows[0], weight, _NORM_EPS, z=rows[1], group_size=self.head_dim)
            y = torch.unflatten(y, 3, (self.n_heads, self.head_dim))
        return y.squeeze(2) if self.mimo_o is None else (y * self.mimo_o.transpose(0, 1)).sum(2)


def _ranks(values: Tensor, weights: Tensor | None) -> Tensor:
    """Weigh values (B, L, H, P) for each rank (B, L, R, H, P); as they are where there are no weights."""
    values = values.unsqueeze(2)
    return values if weights is None else values * weights.transpose(0, 1)


def _turn(x: Tensor, angle: Tensor, *, neighbours: bool) -> Tensor:
    """Turn the first pairs of channels of x (..., N) by angles (..., n_angles); others stay.

    Args:
        x: Projections.
        angle: In radians, at most N / 2.
        neighbours: Whether channel 2 i pairs with 2 i + 1, and not i with i + N / 2.
    """
    half, n_angles = x.shape[-1] // 2, angle.shape[-1]
    pairs = torch.unflatten(x, -1, (half, 2) if neighbours else (2, half))
    pairs = pairs if neighbours else pairs.transpose(-1, -2)
    (first, second), cos, sin = pairs[..., :n_angles, :].unbind(-1), angle.cos(), angle.sin()
    turned = torch.stack([first * cos - second * sin, first * sin + second * cos], dim=-1)
    pairs = torch.cat([turned, pairs[..., n_angles:, :]], dim=-2)
    return (pairs if neighbours else pairs.transpose(-1, -2)).flatten(-2)
