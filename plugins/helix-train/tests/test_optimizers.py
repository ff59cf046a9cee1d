import inspect
import math

import attrs
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.optimizers import OptimizerSuite
from helix_train.optimizers import config
from helix_train.optimizers.lion import Lion
from helix_train.optimizers.muon import Muon
from helix_train.optimizers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from helix_train.optimizers.soap import SOAP

CLASSES = [
    torch.optim.SGD,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RMSprop,
    Lion,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    Muon,
    SOAP,
]


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


class TestScheduleFreeAdamWSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return ScheduleFreeAdamW(params, lr=0.01, weight_decay=0.1)


class TestScheduleFreeSGDSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return ScheduleFreeSGD(params, lr=0.01, weight_decay=0.1)


class TestMuonSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return Muon(params, lr=0.01, weight_decay=0.1)


class TestSOAPSuite(OptimizerSuite):
    def make_optimizer(self, params):
        return SOAP(params, lr=0.01, weight_decay=0.1, precondition_every=2)


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
        (config.ScheduleFreeSGDConfig, {"momentum": 0.0}, "momentum is 0.0"),
        (config.MuonConfig, {"newton_schulz_steps": 100}, "newton_schulz_steps is 100"),
        (config.SOAPConfig, {"precondition_every": 0}, "precondition_every is 0"),
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
