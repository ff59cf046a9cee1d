import inspect
import math

import attrs
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.optimizers import OptimizerSuite
from helix_train.optimizers import config
from helix_train.optimizers.lion import Lion

CLASSES = [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, Lion]


class TestSGDSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True)


class TestAdamSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return torch.optim.Adam(params, lr=0.01, weight_decay=0.1, amsgrad=True)


class TestAdamWSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)


class TestRMSpropSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return torch.optim.RMSprop(params, lr=0.01, momentum=0.9, weight_decay=0.1, centered=True)


class TestLionSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return Lion(params, lr=0.01, weight_decay=0.1)


def sgd(w, g, s, step):
    s["m"] = g if step == 0 else 0.9 * s["m"] + g
    return w - 0.1 * s["m"]


def adam(w, g, s, step):
    return adamw(w, g, s, step, decay=0.0)


def adamw(w, g, s, step, decay=0.05):
    s["m"] = 0.8 * s.get("m", 0) + 0.2 * g
    s["v"] = 0.95 * s.get("v", 0) + 0.05 * g * g
    m, v = s["m"] / (1 - 0.8 ** (step + 1)), s["v"] / (1 - 0.95 ** (step + 1))
    return w * (1 - 0.1 * decay) - 0.1 * m / (math.sqrt(v) + 1e-8)


def rmsprop(w, g, s, step):
    s["v"] = 0.99 * s.get("v", 0) + 0.01 * g * g
    return w - 0.1 * g / (math.sqrt(s["v"]) + 1e-8)


def lion(w, g, s, step):
    c = 0.9 * s.get("m", 0) + 0.1 * g
    s["m"] = 0.99 * s.get("m", 0) + 0.01 * g
    return w - 0.1 * (math.copysign(1, c) * (c != 0) + 0.05 * w)


BETAS = (0.8, 0.95)
FORMULAS = {
    "sgd": (sgd, lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9)),
    "adam": (adam, lambda params: torch.optim.Adam(params, lr=0.1, betas=BETAS)),
    "adamw": (adamw, lambda params: torch.optim.AdamW(params, lr=0.1, betas=BETAS, weight_decay=0.05)),
    "rmsprop": (rmsprop, lambda params: torch.optim.RMSprop(params, lr=0.1)),
    "lion": (lion, lambda params: Lion(params, lr=0.1, betas=(0.9, 0.99), weight_decay=0.05, foreach=False)),
    "lion foreach": (lion, lambda params: Lion(params, lr=0.1, weight_decay=0.05, foreach=True)),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_follows_its_formula_step_for_step(name):
    formula, make = FORMULAS[name]
    generator = torch.Generator().manual_seed(0)
    w, state = 0.7, {}
    weight = torch.nn.Parameter(torch.tensor([w], dtype=torch.float64))
    optimizer = make([weight])
    for step in range(30):
        weight.grad = torch.randn(1, generator=generator, dtype=torch.float64)
        w = formula(w, weight.grad.item(), state, step)
        optimizer.step()
        assert weight.item() == pytest.approx(w, rel=1e-12, abs=1e-14), f"step {step}"


def test_lion_stays_where_the_gradient_is_zero():
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([0.0, 1.0])
    Lion([weight], lr=0.1).step()
    assert weight.tolist() == pytest.approx([1.0, 0.9])


@pytest.mark.parametrize("foreach", [False, True])
def test_lion_groups_tensors_of_several_dtypes(foreach):
    weights = [torch.nn.Parameter(torch.ones(3, dtype=dtype)) for dtype in (torch.float32, torch.float64)]
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    Lion(weights, lr=0.25, foreach=foreach).step()
    assert [weight.tolist() for weight in weights] == [[0.75] * 3] * 2


@pytest.mark.parametrize("foreach", [False, True])
def test_lion_takes_complex_weights_as_pairs(foreach):
    weight = torch.nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    weight.grad = torch.tensor([1 + 5j, -3 + 0j])
    Lion([weight], lr=0.5, foreach=foreach).step()
    assert weight.tolist() == [-0.5 - 0.5j, 0.5 + 0j]


def test_lion_refuses_sparse_gradients():
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ArgumentError, match="gradient is sparse"):
        Lion(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr": -1.0}, "lr is -1.0, allowed is >= 0"),
        ({"weight_decay": math.nan}, "weight_decay is nan, allowed is >= 0"),
        ({"betas": (0.9, 1.0)}, r"betas is \(0.9, 1.0\), allowed are two numbers >= 0 and < 1"),
        ({"betas": (0.9,)}, "allowed are two numbers"),
    ],
)
def test_lion_says_wrong_options_also_of_groups(options, words):
    weight = torch.nn.Parameter(torch.zeros(1))
    with pytest.raises(ArgumentError, match=words):
        Lion([weight], **options)
    with pytest.raises(ArgumentError, match=words):
        Lion([{"params": [weight], **options}])


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (config.SGDConfig, {"nesterov": True}, "needs momentum > 0 and dampening = 0"),
        (config.SGDConfig, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening=0.1"),
        (config.AdamConfig, {"foreach": True, "fused": True}, "foreach and fused are both true"),
        (config.AdamWConfig, {"betas": (0.9, 1.0)}, "betas is"),
        (config.RMSpropConfig, {"lr": -1}, "lr is -1"),
        (config.LionConfig, {"weight_decay": -0.1}, "weight_decay is -0.1"),
    ],
)
def test_configs_refuse_what_torch_would(make, options, words):
    with pytest.raises(ArgumentError, match=words):
        make(params=[], **options)


@pytest.mark.parametrize("make", CLASSES)
def test_every_option_is_the_target_s_and_has_its_default(make):
    signature = inspect.signature(make).parameters
    for field in attrs.fields(getattr(config, f"{make.__name__}Config")):
        default = inspect.Parameter.empty if field.default is attrs.NOTHING else field.default
        assert default == signature[field.name].default, field.name


@pytest.mark.parametrize("make", CLASSES)
def test_a_default_config_builds_its_target(make):
    chosen = getattr(config, f"{make.__name__}Config")(params=[torch.nn.Parameter(torch.zeros(1))])
    options = attrs.asdict(chosen, recurse=False)
    (group,) = make(**options).param_groups
    assert {name: group[name] for name in options} == options
