"""Mixtures find the weights by which symbols were drawn, and leave alone what a tier knows nothing of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from helix_kernel import default_kernel
from helix_topo.mixing import GeometricMixing, LinearMixing, Mixing
from helix_topo.prediction import Prediction

MIXTURES = [LinearMixing, GeometricMixing]
N_SYMBOLS = 7


def drawn(n, *, seed=0, bucket=1):
    """Return what a model and a tier expect at n places, of one class."""
    draw = torch.Generator().manual_seed(seed)
    p, theirs = (2 * torch.randn(2, n, N_SYMBOLS, generator=draw)).softmax(-1)
    return p, Prediction(probabilities=theirs, bucket=torch.full((n,), bucket))


def came(p, *, seed=1):
    return torch.multinomial(p, 1, generator=torch.Generator().manual_seed(seed))[:, 0]


def taught(mixing, p, prediction, symbols):
    """Teach places a hundred at a time, and return the mixing."""
    for first in range(0, len(p), 100):
        part = slice(first, first + 100)
        found = Prediction(probabilities=prediction.probabilities[part], bucket=prediction.bucket[part])
        mixing.mixed(p[part], found, symbols[part])
    return mixing


def product(p, prediction, a, b):
    theirs = (63 * prediction.probabilities + p) / 64  # nothing that the model expects is impossible
    return (a * p.log() + b * theirs.log()).softmax(-1)


def test_a_linear_mixture_finds_its_share():
    p, prediction = drawn(20_000)
    symbols = came(0.3 * p + 0.7 * prediction.probabilities)
    mixing = taught(LinearMixing(2, prior=0.5, n_levels=1), p, prediction, symbols)
    assert mixing.trust[1].item() == pytest.approx(0.7, abs=0.03)


@pytest.mark.parametrize(("a", "b"), [(0.5, 1.2), (1.0, 0.0), (0.0, 0.6), (0.8, 0.2)])
def test_a_geometric_mixture_finds_its_exponents(a, b):
    p, prediction = drawn(20_000)
    mixing = taught(GeometricMixing(2, n_levels=1), p, prediction, came(product(p, prediction, a, b)))
    torch.testing.assert_close(mixing.exponents[1], torch.tensor([a, b]), rtol=0, atol=0.06)


def test_exponents_are_those_of_the_least_cost():
    p, prediction = drawn(5000)
    symbols = came(product(p, prediction, 0.4, 0.9))

    def cost(exponents):
        mixed = product(p.double(), prediction, *exponents)
        return -mixed.gather(1, symbols[:, None]).log().mean().item()

    best = minimize(cost, np.array([0.5, 0.5]), method="Nelder-Mead")
    mixing = taught(GeometricMixing(2, n_levels=1), p, prediction, symbols)
    assert cost(mixing.exponents[1].tolist()) < best.fun + 1e-3
    assert best.fun + 0.1 < cost([1, 0]), "the tier is of no use, so the comparison says little"


def test_each_class_learns_for_itself():
    p, prediction = drawn(6000)
    prediction.bucket[3000:] = 2
    symbols = torch.cat([came(p[:3000]), came(prediction.probabilities[3000:])])
    mixing = taught(GeometricMixing(3, n_levels=1), p, prediction, symbols)
    torch.testing.assert_close(mixing.exponents[1:], torch.eye(2), rtol=0, atol=0.15)


def test_what_changed_is_learned_anew():
    p, prediction = drawn(8000)
    symbols = torch.cat([came(p[:4000]), came(prediction.probabilities[4000:])])
    slow, fast = (
        taught(GeometricMixing(2, n_levels=1, memory=memory), p, prediction, symbols).exponents[1, 1]
        for memory in (100_000, 500)
    )
    assert fast > 0.8
    assert fast > slow + 0.2


@pytest.mark.parametrize("mixture", MIXTURES)
def test_where_a_tier_knows_nothing_the_model_is_left_alone(mixture):
    mixing, (p, prediction) = mixture(3, prior=0.5), drawn(40, bucket=0)
    prediction.probabilities.zero_()
    assert mixing.mixed(p, prediction, came(p)).equal(p)
    assert not mixing.taught.any()


@pytest.mark.parametrize("mixture", MIXTURES)
def test_places_after_which_nothing_came_teach_nothing(mixture):
    mixing, (p, prediction) = mixture(3), drawn(40)
    before = {name: table.clone() for name, table in mixing.named_buffers()}
    mixing.mixed(p, prediction, torch.full((40,), -1))
    assert all(table.equal(before[name]) for name, table in mixing.named_buffers())


@pytest.mark.parametrize("mixture", MIXTURES)
def test_places_are_mixed_before_anything_is_learned_of_them(mixture):
    mixing, (p, prediction) = mixture(3), drawn(40)
    wanted = mixing.mixed(p, prediction)
    assert mixing.mixed(p, prediction, came(p)).equal(wanted)
    assert not mixing.mixed(p, prediction).equal(wanted)


@pytest.mark.parametrize("mixture", MIXTURES)
def test_what_one_side_thinks_impossible_may_come_and_costs_what_is_finite(mixture):
    mixing = mixture(2, prior=0.8)
    prediction = Prediction(probabilities=torch.eye(3), bucket=torch.ones(3, dtype=torch.int64))
    p, symbols = torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0.2, 0.3, 0.5]]), torch.tensor([1, 1, 0])
    for _ in range(50):
        mixed = mixing.mixed(p, prediction, symbols)
        torch.testing.assert_close(mixed.sum(-1), torch.ones(3))
        assert (mixed.gather(1, symbols[:, None]) > 0).all()


@pytest.mark.parametrize("mixture", MIXTURES)
def test_gradients_agree_with_finite_differences(mixture):
    mixing, (p, prediction) = mixture(2, prior=0.4), drawn(6)
    torch.autograd.gradcheck(
        lambda logits: mixing.mixed(logits.softmax(-1), prediction), p.double().log().requires_grad_()
    )


@pytest.mark.parametrize("mixture", ["linear", "geometric"])
def test_classes_are_made_once_a_step(mixture, monkeypatch):
    made = []
    classes = Mixing.classes
    monkeypatch.setattr(Mixing, "classes", lambda *given: made.append(1) or classes(*given))
    table = {"use": "hierarchy", "motifs": {"use": "motifs", "budget": 1 << 20}, "mixture": mixture}
    memory = default_kernel().build("memory_tier", table).train()
    ids = torch.randint(256, (2, 20), generator=torch.Generator().manual_seed(0))
    memory.mix(torch.zeros(2, 20, 256), ids, torch.zeros(2, 20, 1), memory.init_state(2))
    assert len(made) == 1
