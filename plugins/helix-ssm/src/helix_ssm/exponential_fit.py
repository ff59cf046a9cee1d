"""Fits impulse responses by few exponentials, Re sum_n w_n exp(t rate_n): a small diagonal system for each.

Kung 1978's realisation: a response's Hankel matrix H_ij = h_{i+j} has, for a sum of p exponentials, rank p
and a range that a shift by one lag maps onto itself; that map's eigenvalues are the poles. For any other
response the p largest singular directions serve, which is nearly the best a system of p states can do in
the Hankel norm (balanced truncation; proposed for Hyena by Massaroli et al. 2023, arXiv:2310.18780).
Weights are then least squares. H is never made: products with it are convolutions, and its range comes
from subspace iteration (Halko et al. 2011, arXiv:0909.4061, algorithm 4.4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from helix_kernel.errors import ArgumentError

_OVERSAMPLING = 16
_ITERATIONS = 3
_BATCH = 8
_SLOWEST, _FASTEST = 1e-6, 30.0
"""Decay a lag of the slowest and of the fastest mode: all are stable, and none is lost to underflow."""


class Exponentials(NamedTuple):
    """Sums of M exponentials, one for each of K responses.

    Attributes:
        rate: Logarithms of the poles (K, M), complex128, real parts negative.
        weight: Weights (K, M), complex128.
    """

    rate: Tensor
    weight: Tensor


def fit(responses: Tensor, n_modes: int) -> Exponentials:
    """Fit each response by `n_modes` modes: conjugate pairs of poles, or real ones.

    Args:
        responses: Lags 0..n - 1 of K responses (K, n). The fit is in float64, on the CPU.
        n_modes: Modes M for each.

    Raises:
        ArgumentError: There are fewer lags than 4 M + 1.
    """
    n_lags = responses.shape[1]
    if n_lags < 4 * n_modes + 1:
        raise ArgumentError(f"n_lags is {n_lags}, allowed is >= {4 * n_modes + 1} for {n_modes} modes")
    found = [_fit_one(h, poles, n_modes) for h, poles in _with_poles(responses.double().cpu(), 2 * n_modes)]
    return Exponentials(*(torch.stack(column) for column in zip(*found, strict=True)))


def _with_poles(responses: Tensor, order: int) -> list[tuple[Tensor, Tensor]]:
    """Return each response with its (order,) poles."""
    found: list[tuple[Tensor, Tensor]] = []
    for batch in responses.split(_BATCH):  # type: ignore[no-untyped-call]  # torch's
        directions = _hankel_directions(batch, order)
        shift = torch.linalg.lstsq(directions[:, :-1], directions[:, 1:]).solution
        found += zip(batch, torch.linalg.eigvals(shift), strict=True)
    return found


def _hankel_directions(responses: Tensor, order: int) -> Tensor:
    """Return the leading singular vectors of the square Hankel matrices of (K, n), (K, n/2, order)."""
    size = (responses.shape[1] + 1) // 2
    n = 1 << (3 * size).bit_length()
    spectrum = torch.fft.rfft(responses[:, : 2 * size - 1], n=n).unsqueeze(1)

    def product(columns: Tensor) -> Tensor:
        """Return H columns: sum over j of h_{i+j} v_j is a correlation."""
        transformed = torch.fft.rfft(columns.mT, n=n).conj()
        correlation: Tensor = torch.fft.irfft(spectrum * transformed, n=n)
        return correlation[..., :size].transpose(1, 2)

    width = min(size, order + _OVERSAMPLING)
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(size, width, generator=generator, dtype=responses.dtype)
    basis = basis.expand(len(responses), -1, -1)
    for _ in range(_ITERATIONS):
        basis = torch.linalg.qr(product(basis)).Q
    values, vectors = torch.linalg.eigh(basis.mT @ product(basis))  # H is symmetric
    largest = values.abs().argsort(dim=-1, descending=True)[:, :order]
    chosen: Tensor = vectors.gather(2, largest.unsqueeze(1).expand(-1, width, -1))
    return basis.matmul(chosen)


def _fit_one(response: Tensor, poles: Tensor, n_modes: int) -> tuple[Tensor, Tensor]:
    """Return rates and weights (M,) for one response (n,), from one pole of each conjugate pair."""
    poles = poles[poles.imag >= 0]
    decay = -poles.abs().clamp_min(1e-300).log()
    rate = torch.complex(-decay.clamp(_SLOWEST, _FASTEST), poles.angle())
    weight, contributions = _weights(response, rate)
    if len(rate) > n_modes:  # real poles make one mode each, so that there may be more modes than pairs
        rate = rate[contributions.argsort(descending=True)[:n_modes]]
        weight, _ = _weights(response, rate)
    return rate, weight


def _weights(response: Tensor, rate: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least-squares weights (m,) of modes, and the norm of what each adds to the response."""
    t = torch.arange(len(response), dtype=response.dtype)
    powers = torch.exp(t.unsqueeze(1) * rate)
    # Re(w z) = Re w Re z - Im w Im z; a real pole has no imaginary column but rounding.
    real_pole = rate.imag.sin().abs() < 1e-12
    columns = torch.stack([powers.real, torch.where(real_pole, 0.0, -powers.imag)], dim=-1).flatten(1)
    scale = columns.norm(dim=0).clamp_min(1e-12)
    # gelsd copes with columns that are zero or alike.
    solved = torch.linalg.lstsq(columns / scale, response.unsqueeze(1), rcond=1e-12, driver="gelsd")
    parts = (solved.solution.squeeze(1) / scale).view(-1, 2)
    contributions = (columns * parts.flatten()).view(len(response), -1, 2).sum(-1).norm(dim=0)
    return torch.view_as_complex(parts.contiguous()), contributions
