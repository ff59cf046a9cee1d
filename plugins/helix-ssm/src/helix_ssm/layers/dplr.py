"""Linear systems whose matrix is diagonal plus low rank, as in S4: kernel, chunk and step, none dense.

h' = A h + B u, y = C h with A = diag(Lambda) - P P*, made discrete by the bilinear rule,
A' = (I - dt/2 A)^-1 (I + dt/2 A) and B' = (I - dt/2 A)^-1 dt B (Gu et al. 2021, arXiv:2111.00396,
section 3 and appendix C.3). A step solves with Woodbury's identity in O(N).

The kernel K_k = C A'^k B' comes from its generating function at points z, lemma C.3:
sum_k K_k z^k = 2 / (1 + z) (k_CB - k_CP k_PB / (1 + k_PP)), where k_XY = sum_n X_n Y_n / (g - Lambda_n)
and g = 2/dt (1 - z) / (1 + z). The paper takes the L-th roots of unity for z; terms then wrap around, K_k
and K_{k+L} fall together, and it undoes that by C~ = C (I - A'^L), which needs a dense power of A' for each
channel. Here z goes around a smaller circle, z = r exp(-2 pi i j / M) with M a few times L: what wraps
around is K_{k+M} r^M, below rounding by the choice of r. So the kernel is that of C itself, the same for
every L, and no power is taken. All of it is done in float64, as dividing by r^k costs some digits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from helix_ssm.layers.cauchy import cauchy_sums

_WRAPPING = {torch.float32: (2, 1e-8), torch.float64: (4, 1e-12)}
"""By the precision wanted: M / L, and the factor r^M of what wraps around.

Dividing by r^k multiplies rounding by up to that factor to the power -L/M: by 1e4 and 1e3.
"""


class DPLR(NamedTuple):
    """The system of D channels, in complex128, with all N modes: see `with_conjugates`.

    Attributes:
        dt: Step size of each channel (D, 1), float64.
        Lambda: Diagonal of A (D, N).
        P: Low-rank factor of A (D, N).
        B: Input map (D, N).
        C: Output map (D, N).
        precision: float32 or float64: how exact results must be.
    """

    dt: Tensor
    Lambda: Tensor
    P: Tensor
    B: Tensor
    C: Tensor
    precision: torch.dtype

    def step(self, state: Tensor, x_t: Tensor) -> Tensor:
        """Return A' h + B' u for the state h (B, D, N) and the input u = x_t (B, D), in O(N)."""
        half_dt = self.dt / 2
        v = state + half_dt * self._A(state) + self.dt * self.B * x_t.unsqueeze(-1)
        # Woodbury: (E^-1 + dt/2 P P*)^-1 with E = 1 / (1 - dt/2 Lambda).
        E = (1 - half_dt * self.Lambda).reciprocal()
        inner = 1 + half_dt * (self.P.conj() * E * self.P).sum(-1, keepdim=True)
        return E * (v - half_dt * self.P * (self.P.conj() * E * v).sum(-1, keepdim=True) / inner)

    def output(self, state: Tensor) -> Tensor:
        """Return y = C h (B, D) of a state (B, D, N), in float64."""
        return (self.C * state).sum(-1).real

    def kernel(self, seq_len: int) -> Tensor:
        """Return the impulse response C A'^k B' for k < seq_len, (D, seq_len), in float64."""
        circle = self._circle(seq_len)
        CB, CP, PB, PP = cauchy_sums(self._pairs(), self.Lambda, circle.points).unbind(1)
        return circle.to_time(CB - CP * PB / (1 + PP), seq_len)

    def run(self, state: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map a chunk that follows a state to its outputs and the next state, in O(L N) a row and channel.

        The states H(z) = sum_t h_{t+1} z^t are (I - z A')^-1 (A' h + B' U(z)), which by the same lemma is
        2 / (1 + z) (g I - A)^-1 (q + B U(z)) with q = (1/dt + A/2) h. Outputs are C H, back in time, and
        the next state is the coefficient of z^(L-1).

        Args:
            state: State before the chunk (B, D, N).
            x: Inputs (B, L, D), float64, L at least 1.

        Returns:
            y (B, L, D) in float64, and the state (B, D, N).
        """
        batch_size, seq_len, _ = x.shape
        circle = self._circle(seq_len)
        U = circle.from_time(x.permute(2, 0, 1))
        q = (state / self.dt + self._A(state) / 2).transpose(0, 1)
        weights = torch.cat([self._pairs(), self.C[:, None] * q, self.P[:, None].conj() * q], dim=1)
        sums = cauchy_sums(weights, self.Lambda, circle.points)
        CB, CP, PB, PP, Cq, Pq = torch.split(sums, [1, 1, 1, 1, batch_size, batch_size], dim=1)
        correction = (Pq + PB * U) / (1 + PP)
        y = circle.to_time(Cq + CB * U - CP * correction, seq_len)
        return y.permute(1, 2, 0), self._last(circle, seq_len - 1, q, U, correction).transpose(0, 1)

    def _last(self, circle: _Circle, k: int, q: Tensor, U: Tensor, correction: Tensor) -> Tensor:
        """Return the coefficient of z^k of 2/(1+z) (q + B U - P correction) / (g - Lambda), (D, B, N)."""
        weight = circle.weights_of(k)
        rows = torch.cat([weight.expand_as(correction[:, :1]), weight * U, weight * correction], dim=1)
        # As sums over points for each mode: points and poles change places, and with them the sign.
        sums = -cauchy_sums(rows, circle.points, self.Lambda)
        constant, inputs, corrections = torch.split(sums, [1, U.shape[1], U.shape[1]], dim=1)
        half = q * constant + self.B[:, None] * inputs - self.P[:, None] * corrections
        # The other half of the circle gives the conjugate of each mode's partner.
        return half + torch.roll(half, half.shape[-1] // 2, dims=-1).conj()

    def _A(self, state: Tensor) -> Tensor:
        """Return A h of a state (B, D, N)."""
        return self.Lambda * state - self.P * (self.P.conj() * state).sum(-1, keepdim=True)

    def _pairs(self) -> Tensor:
        """Return the weights of k_CB, k_CP, k_PB and k_PP, (D, 4, N)."""
        conj = self.P.conj()
        return torch.stack([self.C * self.B, self.C * self.P, conj * self.B, conj * self.P], dim=1)

    def _circle(self, seq_len: int) -> _Circle:
        ratio, wrapped = _WRAPPING[self.precision]
        n = ratio * seq_len
        radius = wrapped ** (1 / n)
        angle = torch.arange(n // 2 + 1, device=self.dt.device, dtype=torch.float64) * (-2 * math.pi / n)
        z = torch.polar(torch.full_like(angle, radius), angle)
        return _Circle(n, radius, angle, 2 / (1 + z), 2 / self.dt * (1 - z) / (1 + z))


class _Circle(NamedTuple):
    """Points z_j = r exp(-2 pi i j / M) for j = 0..M/2; the others hold the conjugates.

    Attributes:
        n: Number of points M of the whole circle, even.
        radius: r.
        angle: Angles of z (M/2+1,).
        scale: 2 / (1 + z), (M/2+1,).
        points: g = 2/dt (1 - z) / (1 + z), (D, M/2+1).
    """

    n: int
    radius: float
    angle: Tensor
    scale: Tensor
    points: Tensor

    def from_time(self, x: Tensor) -> Tensor:
        """Return sum_t x_t z^t of the last dimension."""
        spectrum: Tensor = torch.fft.rfft(x * self._decay(x.shape[-1]), n=self.n)
        return spectrum

    def to_time(self, values: Tensor, length: int) -> Tensor:
        """Return the coefficients 0..length - 1 of a function that has the values / scale at z."""
        signal: Tensor = torch.fft.irfft(self.scale * values, n=self.n)
        return signal[..., :length] / self._decay(length)

    def weights_of(self, k: int) -> Tensor:
        """Return what to sum values / scale with, over this half, for half of coefficient k (M/2+1,)."""
        ends = torch.ones_like(self.angle)
        ends[0] = ends[-1] = 0.5
        return self.scale * torch.polar(ends * (self.radius**-k / self.n), -k * self.angle)

    def _decay(self, length: int) -> Tensor:
        k = torch.arange(length, device=self.angle.device, dtype=self.angle.dtype)
        return self.radius**k


def with_conjugates(half: Tensor) -> Tensor:
    """Return all N modes in complex128 of (..., N/2) complex ones: their conjugates stand behind them."""
    half = half.to(torch.complex128)
    return torch.cat([half, half.conj()], dim=-1)


def without_conjugates(modes: Tensor) -> Tensor:
    """Return the first half (..., N/2) of what `with_conjugates` gave."""
    return modes[..., : modes.shape[-1] // 2]
