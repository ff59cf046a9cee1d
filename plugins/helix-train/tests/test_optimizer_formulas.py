"""Each optimizer is its published formula, step for step, at a learning rate that changes each step."""

import math

import numpy as np
import optimizer_formulas as formulas
import pytest
import torch

from helix_train.optimizers.lion import Lion
from helix_train.optimizers.muon import Muon
from helix_train.optimizers.schedule_free import ScheduleFreeAdamW, ScheduleFreeSGD
from helix_train.optimizers.soap import SOAP

# Shapes of whose products with themselves no eigenvalue but one can be 0, so that every basis is determined.
SHAPES = [(4, 4), (4, 3), (2, 3, 4)]
BETAS = (0.8, 0.95)
CASES = {
    "sgd": (formulas.sgd, {}, torch.optim.SGD, {}),
    "sgd nesterov": (
        formulas.sgd,
        {"momentum": 0.9, "nesterov": True, "decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    "sgd dampening": (
        formulas.sgd,
        {"momentum": 0.9, "dampening": 0.3, "decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    ),
    "adam": (formulas.adam, {"betas": BETAS}, torch.optim.Adam, {"betas": BETAS}),
    "adam amsgrad": (
        formulas.adam,
        {"betas": BETAS, "decay": 0.1, "amsgrad": True, "eps": 0.01},
        torch.optim.Adam,
        {"betas": BETAS, "weight_decay": 0.1, "amsgrad": True, "eps": 0.01},
    ),
    "adamw": (
        formulas.adamw,
        {"betas": BETAS, "decay": 0.1, "eps": 0.01},
        torch.optim.AdamW,
        {"betas": BETAS, "weight_decay": 0.1, "eps": 0.01},
    ),
    "adamw amsgrad": (formulas.adamw, {"amsgrad": True}, torch.optim.AdamW, {"amsgrad": True}),
    "rmsprop": (
        formulas.rmsprop,
        {"alpha": 0.9, "decay": 0.1, "eps": 0.01},
        torch.optim.RMSprop,
        {"alpha": 0.9, "weight_decay": 0.1, "eps": 0.01},
    ),
    "rmsprop centered": (
        formulas.rmsprop,
        {"momentum": 0.9, "centered": True},
        torch.optim.RMSprop,
        {"momentum": 0.9, "centered": True},
    ),
    "lion": (formulas.lion, {"decay": 0.1, "betas": BETAS}, Lion, {"weight_decay": 0.1, "betas": BETAS}),
    "schedule-free-adamw": (
        formulas.schedule_free_adamw,
        {"betas": BETAS, "decay": 0.1, "eps": 0.01},
        ScheduleFreeAdamW,
        {"betas": BETAS, "weight_decay": 0.1, "eps": 0.01},
    ),
    "schedule-free-sgd": (
        formulas.schedule_free_sgd,
        {"momentum": 0.7, "decay": 0.1},
        ScheduleFreeSGD,
        {"momentum": 0.7, "weight_decay": 0.1},
    ),
    "muon": (formulas.muon, {"decay": 0.1}, Muon, {"weight_decay": 0.1}),
    "muon match-rms-adamw": (
        formulas.muon,
        {"momentum": 0.8, "nesterov": False, "scale": "match-rms-adamw"},
        Muon,
        {"momentum": 0.8, "nesterov": False, "scale": "match-rms-adamw"},
    ),
    "muon without matrices": (
        lambda w, g, lr, step, memory: formulas.adamw(
            w, g, 0.5 * lr, step, memory, betas=BETAS, eps=0.01, decay=0.1
        ),
        {},
        Muon,
        {"use_muon": False, "adamw_lr_factor": 0.5, "weight_decay": 0.1, "betas": BETAS, "eps": 0.01},
    ),
    "soap": (
        formulas.soap,
        {"betas": BETAS, "every": 3, "decay": 0.1, "eps": 1e-3},
        SOAP,
        {"betas": BETAS, "precondition_every": 3, "weight_decay": 0.1, "eps": 1e-3},
    ),
}
PATHS = [(name, {"foreach": foreach}) for name in CASES for foreach in (False, True)] + [
    (name, {"fused": True}) for name in CASES if name.startswith(("sgd", "adam"))
]


def run(make, options, formula, constants, *, n_steps=25):
    """Yield the weights and those of the formula after each step."""
    draws = np.random.default_rng(0)
    expected = [draws.standard_normal(shape) for shape in SHAPES]
    memories = [{} for _ in SHAPES]
    weights = [torch.nn.Parameter(torch.from_numpy(w.copy())) for w in expected]
    optimizer = make(weights, **options)
    for step in range(1, n_steps + 1):
        lr = 0.05 * (1.2 + math.sin(step))
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients = [draws.standard_normal(shape) for shape in SHAPES]
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        parts = zip(expected, gradients, memories, strict=True)
        expected = [formula(w, g, lr, step, memory, **constants) for w, g, memory in parts]
        yield step, optimizer, weights, expected, memories


def assert_close(weights, expected, step):
    for weight, wanted in zip(weights, expected, strict=True):
        np.testing.assert_allclose(
            weight.detach().numpy(), wanted, rtol=1e-10, atol=1e-12, err_msg=f"step {step}"
        )


@pytest.mark.parametrize(
    ("name", "path"), PATHS, ids=lambda value: value if isinstance(value, str) else str(value)
)
def test_an_optimizer_is_its_formula_step_for_step(name, path):
    formula, constants, make, options = CASES[name]
    for step, _, weights, expected, _ in run(make, {**options, **path}, formula, constants):
        assert_close(weights, expected, step)


@pytest.mark.parametrize("name", ["schedule-free-adamw", "schedule-free-sgd"])
def test_the_average_is_that_of_the_formula_at_every_step(name):
    formula, constants, make, options = CASES[name]
    for step, optimizer, weights, expected, memories in run(make, options, formula, constants):
        optimizer.eval()
        assert_close(weights, [memory["x"] for memory in memories], step)
        optimizer.train()
        assert_close(weights, expected, step)
