"""The diagonal state-space layer of Gu et al. (2022), S4D, arXiv:2206.11893."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError, did_you_mean
from helix_ssm.layers.protocol import (
    at_least_float32,
    check_at_least,
    check_chunk,
    full_precision,
    without_weight_decay,
)
from helix_ssm.ops import long_conv

Init = Literal["lin", "inv", "real"]

_STRIDE = 64


class S4D(nn.Module):
    """S4D block: each channel through its own linear system, then GELU and a gated output map.

    Each channel u obeys h_t = exp(dt A) h_{t-1} + B' u_t, y_t = Re(C h_t) + D u_t with A diagonal and
    B' = (exp(dt A) - 1) / A: zero-order hold with B = 1 (section 3.1, and Listing 1 of the paper).
    Over a sequence that is a convolution with K_s = Re(sum_n C_n B'_n exp(s dt A_n)) (equation 4).
    A's modes come in conjugate pairs, of which only one is kept and counted twice, except for "real".
    The block ends in the layer's usual out_proj(GELU(y)), gated by half of its outputs.

    Args:
        d_model: Width D of input and output.
        d_state: Real states N of each channel.
        init: Initial A: "lin" -1/2 + i pi n (S4D-Lin, equation 9); "inv" the inverse law (S4D-Inv,
            equation 8); "real" -(n + 1) (S4D-Real), which stays real.
        dt_min: Smallest initial step size; step sizes begin log-uniform.
        dt_max: Largest initial step size.

    Raises:
        ArgumentError: A size is below 1, d_state is odd with complex modes, there is no such init, or
            dt_min and dt_max are not 0 < dt_min <= dt_max.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: Init = "lin",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        _check_arguments(d_model, d_state, init, dt_min, dt_max)
        self.d_model, self.d_state = d_model, d_state
        A = initial_modes(init, d_state).repeat(d_model, 1)
        n_modes = A.shape[1]
        log_dt = torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = nn.Parameter(log_dt)
        self.A_log = without_weight_decay(nn.Parameter((-A.real).log()))
        self.A_imag = without_weight_decay(nn.Parameter(A.imag.clone())) if A.is_complex() else None
        # Listing 1: C is standard normal; a complex one has half of its variance in each part.
        C = torch.randn(d_model, n_modes, dtype=A.dtype)
        self.C = nn.Parameter(torch.view_as_real(C).clone() if C.is_complex() else C)
        self.D = nn.Parameter(torch.randn(d_model))
        self.out_proj = nn.Linear(d_model, 2 * d_model)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (B, L, D) to (B, L, D)."""
        check_chunk("s4d", x, self.d_model)
        return self._output(self._convolve(x))

    def init_state(
        self, batch_size: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Return the state before the first token: zeros, of C's shape with the batch before it.

        That is (B, D, N) for real modes and (B, D, N/2, 2) for complex ones, as real and imaginary part.
        """
        device = self.C.device if device is None else device
        dtype = self.C.dtype if dtype is None else dtype
        return at_least_float32(torch.zeros(batch_size, *self.C.shape, device=device, dtype=dtype))

    def extend(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk x (B, L, D) that follows `state` to (B, L, D) and the next state.

        Costs one convolution over the chunk and O(L D N) for what enters from and leaves to states.
        """
        check_chunk("s4d", x, self.d_model)
        h = self._to_modes(state)
        rate, B, C = self._system()
        powers = _powers(rate, x.shape[1] + 1)
        with full_precision(x):
            from_state = torch.einsum("bdn,dnl->bld", C * h, powers[..., 1:]).real
            inputs = at_least_float32(x).to(powers.dtype)
            h = h * powers[..., -1] + B * torch.einsum("bld,dnl->bdn", inputs, powers[..., :-1].flip(-1))
        y = self._convolve(x) + from_state.to(x.dtype)
        return self._output(y), self._from_modes(h).to(state.dtype)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map one token x_t (B, D) that follows `state` to (B, D) and the next state, in O(D N)."""
        rate, B, C = self._system()
        h = torch.exp(rate) * self._to_modes(state) + B * at_least_float32(x_t).unsqueeze(-1)
        y = (C * h).sum(-1).real.to(x_t.dtype) + self.D * x_t
        return self._output(y), self._from_modes(h).to(state.dtype)

    def kernel(self, seq_len: int) -> Tensor:
        """Return the convolution's kernel K (D, seq_len), float32 or wider (equation 4)."""
        rate, B, C = self._system()
        # exp((i S + j) rate) = exp(i S rate) exp(j rate): L / S + S exponentials a mode, and never (D, N, L).
        within = _powers(rate, _STRIDE)
        across = _powers(_STRIDE * rate, -(-seq_len // _STRIDE))
        with full_precision(rate):
            kernel = torch.einsum("dni,dnj->dij", (C * B).unsqueeze(-1) * across, within).real
        return kernel.flatten(1)[:, :seq_len]

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return dt A, the discrete B and C, each (D, modes); C counts conjugate pairs twice."""
        dt = torch.exp(at_least_float32(self.log_dt)).unsqueeze(-1)
        A = -torch.exp(at_least_float32(self.A_log))
        if self.A_imag is None:
            return dt * A, torch.expm1(dt * A) / A, at_least_float32(self.C)
        A = torch.complex(A, at_least_float32(self.A_imag))
        return dt * A, torch.expm1(dt * A) / A, 2 * self._to_modes(self.C)

    def _to_modes(self, x: Tensor) -> Tensor:
        """Return what parameters and states hold as one number a mode, complex where modes are."""
        x = at_least_float32(x)
        return x if self.A_imag is None else torch.view_as_complex(x.contiguous())

    def _from_modes(self, x: Tensor) -> Tensor:
        return torch.view_as_real(x) if x.is_complex() else x

    def _convolve(self, x: Tensor) -> Tensor:
        return long_conv(x, self.kernel(x.shape[1]), D=self.D)

    def _output(self, y: Tensor) -> Tensor:
        return F.glu(self.out_proj(F.gelu(y)))


def initial_modes(init: Init, d_state: int) -> Tensor:
    """Return the initial diagonal of A: (N/2,) complex, or (N,) real for "real" (section 4)."""
    if init == "real":
        return -torch.arange(1.0, d_state + 1)
    n = torch.arange(d_state // 2, dtype=torch.float32)
    imag = math.pi * n if init == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), imag)


def _powers(rate: Tensor, length: int) -> Tensor:
    """Return exp(s rate) for s = 0..length - 1, (D, modes, length)."""
    s = torch.arange(length, device=rate.device, dtype=rate.real.dtype)
    return torch.exp(rate.unsqueeze(-1) * s)


def _check_arguments(d_model: int, d_state: int, init: str, dt_min: float, dt_max: float) -> None:
    check_at_least("s4d", "d_model", d_model, 1)
    check_at_least("s4d", "d_state", d_state, 1)
    allowed = get_args(Init)
    if init not in allowed:
        raise ArgumentError(
            f"s4d: init is {init!r}, allowed are {', '.join(map(repr, allowed))}."
            f"{did_you_mean(init, allowed)}"
        )
    if init != "real" and d_state % 2:
        raise ArgumentError(f"s4d: d_state is {d_state}, allowed is an even number with init {init!r}")
    if not 0 < dt_min <= dt_max:
        raise ArgumentError(
            f"s4d: dt_min is {dt_min!r} and dt_max {dt_max!r}, allowed is 0 < dt_min <= dt_max"
        )
