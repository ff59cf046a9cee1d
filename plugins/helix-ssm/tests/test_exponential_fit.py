from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch

from helix_kernel.errors import ArgumentError
from helix_ssm import exponential_fit
from helix_ssm.exponential_fit import fit
from helix_ssm.layers import modes


def exponentials(n_modes, *, n_responses=3):
    generator = torch.Generator().manual_seed(n_modes)
    draw = torch.rand(2, n_responses, n_modes, generator=generator, dtype=torch.float64)
    rate = torch.complex(-0.1 * draw[0] - 0.001, 3 * draw[1])
    return rate, torch.randn(n_responses, n_modes, generator=generator, dtype=torch.complex128)


def rendered(found, n_lags):
    return modes.impulse_response(found.rate, found.weight, n_lags)


@pytest.mark.parametrize("n_modes", [1, 2, 5])
def test_a_sum_of_exponentials_is_found_again(n_modes):
    rate, weight = exponentials(n_modes)
    found = fit(modes.impulse_response(rate, weight, 201), n_modes)
    order, expected = found.rate.imag.argsort(), rate.imag.argsort()
    torch.testing.assert_close(found.rate.gather(1, order), rate.gather(1, expected), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        found.weight.gather(1, order), weight.gather(1, expected), rtol=1e-6, atol=1e-8
    )


def test_more_modes_than_needed_do_no_harm():
    response = modes.impulse_response(*exponentials(2), 201)
    found = fit(response, 6)
    torch.testing.assert_close(rendered(found, 201), response, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pole", [0.9, -0.9, 0.0])
def test_a_real_pole_is_a_mode_too(pole):
    """A negative one turns by pi each lag; one of zero is a pulse at lag 0."""
    response = torch.tensor([[pole**t for t in range(60)]], dtype=torch.float64)
    for n_modes in (1, 3):
        found = fit(response, n_modes)
        assert (found.rate.real < 0).all()
        torch.testing.assert_close(rendered(found, 60), response, rtol=1e-9, atol=1e-9)
        narrow = modes.impulse_response(found.rate.to(torch.complex64), found.weight.to(torch.complex64), 60)
        torch.testing.assert_close(narrow.double(), response, rtol=1e-5, atol=1e-6)


def test_nothing_is_fitted_to_nothing():
    assert rendered(fit(torch.zeros(1, 33), 4), 33).abs().max() < 1e-12


def test_the_error_falls_with_the_number_of_modes():
    t = torch.arange(400, dtype=torch.float64) / 100
    response = (torch.exp(-2 * t) * torch.cos(torch.sin(9 * t) + t * t)).unsqueeze(0)
    errors = [(rendered(fit(response, n), 400) - response).norm() / response.norm() for n in (2, 4, 8, 16)]
    assert all(small < 0.5 * large for large, small in itertools.pairwise(errors))
    assert errors[-1] < 2e-3


def test_directions_are_numpys_singular_vectors_of_the_whole_hankel_matrix():
    response = np.random.default_rng(0).standard_normal(200) * np.exp(-np.arange(200) / 30)
    hankel = scipy.linalg.hankel(response[:100], response[99:199])
    U, singular, _ = np.linalg.svd(hankel)
    directions = exponential_fit._hankel_directions(torch.from_numpy(response)[None], 8)[0].numpy()
    inside = np.linalg.norm(U[:, :8].T @ directions, axis=0)
    assert singular[8] / singular[7] > 0.8  # a hard case: the next direction is nearly as strong
    np.testing.assert_allclose(inside, 1, atol=0.02)


def test_too_few_lags_are_refused():
    with pytest.raises(ArgumentError, match="n_lags is 32, allowed is >= 33 for 8 modes"):
        fit(torch.zeros(1, 32), 8)
