"""Bounds of gradients, against their formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch

from helix_train.clipping import Clipping, clip_adaptively


@pytest.fixture
def weights():
    """Weights with gradients: a matrix, a convolution's filters, a vector, a number, and one without."""
    generator = torch.Generator().manual_seed(0)
    made = [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        for shape in [(5, 3), (4, 2, 3), (6,), (), (2, 2)]
    ]
    made[0].data[1] = 0.0  # a row whose weights are all zero
    for weight in made[:-1]:
        weight.grad = 3 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    return made


def gradients(weights):
    return [weight.grad.clone() for weight in weights if weight.grad is not None]


def norm_of(tensors):
    return math.sqrt(sum(float(tensor.square().sum()) for tensor in tensors))


def test_no_bound_changes_nothing_and_measures_the_norm(weights):
    before = gradients(weights)
    assert float(Clipping()(weights)) == pytest.approx(norm_of(before), rel=1e-12)
    assert all(torch.equal(one, other) for one, other in zip(before, gradients(weights), strict=True))


def test_the_norm_of_the_whole_is_bounded(weights):
    before = gradients(weights)
    assert float(Clipping(norm=0.5)(weights)) == pytest.approx(norm_of(before), rel=1e-12)
    after = gradients(weights)
    assert norm_of(after) == pytest.approx(0.5, rel=1e-5)  # torch adds 1e-6 to the norm that it divides by
    torch.testing.assert_close(after[0] / before[0], (after[2] / before[2])[0].expand(5, 3))


@pytest.mark.parametrize("bound", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_and_gradients_are_those_of_torch_to_the_bit(weights, bound, dtype):
    own, theirs = ([torch.nn.Parameter(weight.detach().to(dtype)) for weight in weights] for _ in range(2))
    for one, other, weight in zip(own[:-1], theirs[:-1], weights, strict=False):
        one.grad, other.grad = (weight.grad.to(dtype, copy=True) for _ in range(2))
    assert Clipping(norm=bound)(own) == float(torch.nn.utils.clip_grad_norm_(theirs, bound))
    for one, other in zip(gradients(own), gradients(theirs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("clipping", [Clipping(), Clipping(norm=1.0), Clipping(adaptive=0.1, value=1.0)])
def test_without_any_gradient_the_norm_is_0(clipping):
    assert clipping([torch.nn.Parameter(torch.ones(2))]) == 0.0


def test_elements_are_bounded_and_the_norm_is_that_from_before(weights):
    before = gradients(weights)
    assert float(Clipping(value=0.7)(weights)) == pytest.approx(norm_of(before), rel=1e-12)
    for one, other in zip(before, gradients(weights), strict=True):
        assert torch.equal(other, one.clamp(-0.7, 0.7))


def test_rows_are_bounded_by_their_weights_as_equation_3_says(weights):
    before = gradients(weights)
    assert float(Clipping(adaptive=0.1)(weights)) == pytest.approx(norm_of(before), rel=1e-12)
    for weight, gradient in zip(weights, before, strict=False):
        rows = gradient.flatten(1) if gradient.ndim > 1 else gradient.reshape(1, -1)
        own = weight.detach().reshape(rows.shape)
        for row, values, found in zip(rows, own, weight.grad.reshape(rows.shape), strict=True):
            largest = 0.1 * max(float(values.norm()), 1e-3)
            expected = row * min(1.0, largest / float(row.norm()))
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_a_gradient_of_zeros_stays_as_it_is():
    weight = torch.nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    clip_adaptively([weight], 0.1)
    assert torch.equal(weight.grad, torch.zeros(2, 2))


def test_all_bounds_hold_together(weights):
    Clipping(adaptive=0.5, value=0.2, norm=0.3)(weights)
    after = gradients(weights)
    assert norm_of(after) <= 0.3 + 1e-6
    assert max(float(gradient.abs().max()) for gradient in after) <= 0.2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_in_the_norm(weights, bad):
    weights[1].grad[0, 0, 0] = bad
    for clipping in (Clipping(norm=1.0), Clipping(adaptive=0.1), Clipping(value=0.1)):
        assert not math.isfinite(float(clipping(weights)))
        weights[1].grad[0, 0, 0] = bad
