"""The diagonal state-space layer of Gu et al. (2022), S4D, arXiv:2206.11893."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from helix_ssm.layers import modes
from helix_ssm.layers._check import check_choice, check_dt_range, check_even
from helix_ssm.layers.hippo import normal_plus_low_rank
from helix_ssm.layers.protocol import at_least_float32, check_at_least, check_chunk, without_weight_decay
from helix_ssm.ops import long_conv

Init = Literal["lin", "inv", "legs", "real"]
Discretization = Literal["zoh", "bilinear"]


class S4D(nn.Module):
    """S4D block: each channel through its own linear system, then GELU and a gated output map.

    Each channel u obeys h_t = A' h_{t-1} + B' u_t, y_t = Re(C h_t) + D u_t with A' and B' the discrete
    forms of a diagonal A and of B = 1 (section 3.1, and Listing 1 of the paper): exp(dt A) and
    (exp(dt A) - 1) / A by zero-order hold, (1 + dt A / 2) / (1 - dt A / 2) and dt / (1 - dt A / 2) by the
    bilinear rule. Over a sequence that is a convolution with K_s = Re(sum_n C_n B'_n A'_n^s) (equation 4).
    A's modes come in conjugate pairs, of which only one is kept and counted twice, except for "real".
    The block ends in the layer's usual out_proj(GELU(y)), gated by half of its outputs.

    Args:
        d_model: Width D of input and output.
        d_state: Real states N of each channel.
        init: Initial A: "lin" -1/2 + i pi n (S4D-Lin, equation 9); "inv" the inverse law (S4D-Inv,
            equation 8); "legs" the modes of HiPPO-LegS' normal part (S4D-LegS, section 4.1); "real"
            -(n + 1) (S4D-Real), which stays real.
        discretization: "zoh", zero-order hold, or "bilinear".
        dt_min: Smallest initial step size; step sizes begin log-uniform.
        dt_max: Largest initial step size.

    Raises:
        ArgumentError: A size is below 1, d_state is odd with complex modes, there is no such init or
            discretization, or dt_min and dt_max are not 0 < dt_min <= dt_max.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 64,
        init: Init = "lin",
        discretization: Discretization = "zoh",
        dt_min: float = 1e-3,
        dt_max: float = 0.1,
    ) -> None:
        super().__init__()
        _check_arguments(d_model, d_state, init, discretization, dt_min, dt_max)
        self.d_model, self.d_state, self.discretization = d_model, d_state, discretization
        A = initial_modes(init, d_state).repeat(d_model, 1)
        n_modes = A.shape[1]
        log_dt = torch.empty(d_model).uniform_(math.log(dt_min), math.log(dt_max))
        self.log_dt = without_weight_decay(nn.Parameter(log_dt))
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
        rate, B, C = self._system()
        h = self._to_modes(state)
        from_state = modes.free_response(rate, C, h, x.shape[1])
        h = modes.final_state(rate, B, h, at_least_float32(x))
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
        return modes.impulse_response(rate, C * B, seq_len)

    def _system(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return log A', B' and C, each (D, modes); C counts conjugate pairs twice."""
        dt = torch.exp(at_least_float32(self.log_dt)).unsqueeze(-1)
        A = -torch.exp(at_least_float32(self.A_log))
        if self.A_imag is not None:
            A = torch.complex(A, at_least_float32(self.A_imag))
        C = self._to_modes(self.C) if self.A_imag is None else 2 * self._to_modes(self.C)
        if self.discretization == "zoh":
            return dt * A, torch.expm1(dt * A) / A, C
        return _log_bilinear(dt * A), dt / (1 - dt * A / 2), C

    def _to_modes(self, x: Tensor) -> Tensor:
        """Return what parameters and states hold as one number a mode, complex where modes are."""
        x = at_least_float32(x)
        return x if self.A_imag is None else torch.view_as_complex(x.contiguous())

    def _from_modes(self, x: Tensor) -> Tensor:
        return x.real if self.A_imag is None else torch.view_as_real(x)

    def _convolve(self, x: Tensor) -> Tensor:
        return long_conv(x, self.kernel(x.shape[1]), D=self.D)

    def _output(self, y: Tensor) -> Tensor:
        return F.glu(self.out_proj(F.gelu(y)))


def initial_modes(init: Init, d_state: int) -> Tensor:
    """Return the initial diagonal of A: (N/2,) complex, or (N,) real for "real" (section 4)."""
    if init == "real":
        return -torch.arange(1.0, d_state + 1)
    if init == "legs":
        return normal_plus_low_rank(d_state).Lambda.to(torch.complex64)
    n = torch.arange(d_state // 2, dtype=torch.float32)
    imag = math.pi * n if init == "lin" else d_state / math.pi * (d_state / (2 * n + 1) - 1)
    return torch.complex(torch.full_like(n, -0.5), imag)


def _log_bilinear(z: Tensor) -> Tensor:
    """Return log((1 + z / 2) / (1 - z / 2)), complex: for a real z below -2 the quotient is negative."""
    # At z = -2 the quotient is 0 and has no logarithm; a mode next to it dies as fast.
    z = torch.where(z == -2, z * (1 + 1e-6), z)
    z = z if z.is_complex() else torch.complex(z, torch.zeros_like(z))
    return 2 * torch.atanh(z / 2)


def _check_arguments(
    d_model: int, d_state: int, init: str, discretization: str, dt_min: float, dt_max: float
) -> None:
    check_at_least("s4d", "d_model", d_model, 1)
    check_at_least("s4d", "d_state", d_state, 1)
    check_choice("s4d", "init", init, get_args(Init))
    check_choice("s4d", "discretization", discretization, get_args(Discretization))
    if init != "real":
        check_even("s4d", "d_state", d_state, f" with init {init!r}")
    check_dt_range("s4d", dt_min, dt_max)
