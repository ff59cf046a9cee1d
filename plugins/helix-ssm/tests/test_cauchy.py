from __future__ import annotations

import itertools

import torch

from helix_ssm.layers import cauchy


def arguments(n_poles=5, n_points=7):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.complex128)

    return draw(3, 2, n_poles), draw(3, n_poles), draw(3, n_points)


def test_sums_are_the_formulas_one_by_one(monkeypatch):
    weight, poles, points = arguments()
    for entries in (1 << 21, 30, 1):  # one slice, two points a slice, one
        monkeypatch.setattr(cauchy, "_ENTRIES", entries)
        sums = cauchy.cauchy_sums(weight, poles, points)
        for d, r, j in itertools.product(range(3), range(2), range(7)):
            expected = sum(weight[d, r] / (points[d, j] - poles[d]))
            assert abs(sums[d, r, j] - expected) < 1e-12 * abs(expected)


def test_gradients_agree_with_finite_differences(monkeypatch):
    monkeypatch.setattr(cauchy, "_ENTRIES", 30)
    given = [x.requires_grad_() for x in arguments()]
    assert torch.autograd.gradcheck(cauchy.cauchy_sums, given)


def test_no_matrix_is_kept_for_the_backward_pass():
    given = [x.requires_grad_() for x in arguments(n_poles=8, n_points=100)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        cauchy.cauchy_sums(*given)
    assert sum(saved) == sum(x.numel() for x in given)
