from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from scipy.special import eval_legendre

from helix_ssm.layers.hippo import legs, normal_plus_low_rank


def test_legs_is_the_papers_formula_entry_by_entry():
    A, B = legs(5)
    for n in range(5):
        assert B[n].item() == pytest.approx((2 * n + 1) ** 0.5)
        for k in range(5):
            expected = -(((2 * n + 1) * (2 * k + 1)) ** 0.5) if n > k else -(n + 1) if n == k else 0
            assert A[n, k].item() == pytest.approx(expected)


def test_legs_states_are_legendre_polynomials_of_an_exponentially_warped_past():
    """exp(tA) B is sqrt(2n+1) P_n(2 exp(-t) - 1) exp(-t) up to sign (arXiv:2206.12037, corollary 3.3)."""
    A, B = (x.numpy() for x in legs(6))
    t = np.linspace(0, 2, 9)
    for n in range(6):
        _, response = scipy.signal.impulse((A, B[:, None], np.eye(6)[[n]], np.zeros((1, 1))), T=t)
        warped = np.sqrt(2 * n + 1) * np.exp(-t) * eval_legendre(n, 2 * np.exp(-t) - 1)
        np.testing.assert_allclose(np.abs(response), np.abs(warped), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("d_state", [2, 8, 64])
def test_the_diagonal_basis_describes_the_same_system(d_state):
    """The transfer function of (A, B, C = B) at a few frequencies, dense and in the new basis."""
    A, B = (x.numpy() for x in legs(d_state))
    system = [x.numpy() for x in normal_plus_low_rank(d_state)]
    Lambda, P, B_V = (np.concatenate([x, x.conj()]) for x in system)
    for s in (0.1, 1j, 3 + 5j, 40j):
        dense = B @ np.linalg.solve(s * np.eye(d_state) - A, B)
        low_rank = np.diag(Lambda) - np.outer(P, P.conj())
        diagonal = B_V.conj() @ np.linalg.solve(s * np.eye(d_state) - low_rank, B_V)
        np.testing.assert_allclose(diagonal, dense, rtol=1e-9)


def test_modes_are_one_of_each_pair_in_rising_order():
    Lambda = normal_plus_low_rank(16).Lambda
    assert Lambda.shape == (8,)
    assert (Lambda.imag > 0).all()
    assert (Lambda.imag.diff() > 0).all()
    torch.testing.assert_close(Lambda.real, torch.full((8,), -0.5, dtype=torch.float64))
