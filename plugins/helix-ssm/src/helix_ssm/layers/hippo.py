"""The HiPPO-LegS matrix of Gu et al. (2020), arXiv:2008.07669, and its normal plus low-rank form."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NormalPlusLowRank(NamedTuple):
    """HiPPO-LegS in the basis in which its normal part is diagonal, one mode of each conjugate pair.

    A = V (diag(Lambda) - P P*) V* and B = V B_V, so that Lambda, P and B_V with their conjugates are the
    whole system.

    Attributes:
        Lambda: Modes of the normal part, (N/2,) complex128 with positive imaginary part, rising.
        P: The low-rank factor in that basis, (N/2,) complex128.
        B: The input map in that basis, (N/2,) complex128.
    """

    Lambda: Tensor
    P: Tensor
    B: Tensor


def legs(d_state: int) -> tuple[Tensor, Tensor]:
    """Return HiPPO-LegS' A (N, N) and B (N,) in float64 (Gu et al. 2021, arXiv:2111.00396, equation 2).

    A_nk is -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it and 0 above; B_n is sqrt(2n+1).
    """
    n = torch.arange(d_state, dtype=torch.float64)
    B = torch.sqrt(2 * n + 1)
    return -torch.outer(B, B).tril(-1) - torch.diag(n + 1), B


def normal_plus_low_rank(d_state: int) -> NormalPlusLowRank:
    """Return HiPPO-LegS as a normal matrix minus one of rank 1 (arXiv:2111.00396, appendix C.1).

    Args:
        d_state: States N, an even number: the eigenvalues then come in conjugate pairs.
    """
    Lambda, V = normal_modes(d_state)
    _, B = legs(d_state)
    return NormalPlusLowRank(Lambda, P=V.mH @ _low_rank(d_state).to(V.dtype), B=V.mH @ B.to(V.dtype))


def normal_modes(d_state: int) -> tuple[Tensor, Tensor]:
    """Return the modes Lambda (N/2,) and eigenvectors V (N, N/2) of the normal part, complex128.

    With P_n = sqrt(n + 1/2), A + P P^T is -1/2 I plus a skew-symmetric S. So it is normal, and its
    eigenvectors are those of the Hermitian i S, which makes them orthogonal to rounding. Of each
    conjugate pair there is one, with positive imaginary part, rising.

    Args:
        d_state: States N, an even number.
    """
    A, _ = legs(d_state)
    P = _low_rank(d_state)
    skew = A + torch.outer(P, P) + torch.eye(d_state) / 2
    minus_imag, V = torch.linalg.eigh(1j * skew)  # the eigenvalues of S are -i times these
    half = slice(0, d_state // 2)  # the negative ones, from the largest on
    imag = -minus_imag[half].flip(0)
    return torch.complex(torch.full_like(imag, -0.5), imag), V[:, half].flip(1)


def _low_rank(d_state: int) -> Tensor:
    return torch.sqrt(torch.arange(d_state, dtype=torch.float64) + 0.5)
