"""The state of a run, taken apart and put together again."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch

from helix_kernel.errors import IncompatibleCheckpointError
from helix_train.state import (
    load_optimizer_state,
    load_rng_state,
    optimizer_state,
    parameter_groups,
    rng_state,
    seed_rngs,
)


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4), torch.nn.Linear(4, 2))


def stepped(module: torch.nn.Module, optimizer: torch.optim.Optimizer, n_steps: int) -> list[torch.Tensor]:
    for step in range(n_steps):
        torch.manual_seed(step)
        module(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach().clone() for parameter in module.parameters()]


def test_vectors_and_marked_parameters_are_not_decayed():
    module = model()
    module[2].weight._no_weight_decay = True
    decayed, spared = parameter_groups(module)
    assert [p is module[0].weight for p in decayed["params"]] == [True]
    assert spared["weight_decay"] == 0
    assert len(spared["params"]) == 5


def test_frozen_parameters_are_left_out():
    module = model().requires_grad_(False)
    module[0].bias.requires_grad_(True)
    (group,) = parameter_groups(module)
    assert group["params"] == [module[0].bias]


def test_optimizer_state_is_named_by_slot_and_parameter():
    module = model()
    optimizer = torch.optim.AdamW(parameter_groups(module))
    stepped(module, optimizer, 1)
    state = optimizer_state(optimizer, module)
    assert state["state"]["exp_avg"]["0"]["weight"].shape == (4, 3)
    assert state["param_groups"][0]["params"] == ["0.weight", "2.weight"]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop])
def test_going_on_from_a_saved_state_equals_not_stopping(kind: type[torch.optim.Optimizer]):
    whole = model()
    optimizer = kind(parameter_groups(whole), lr=0.01)
    stepped(whole, optimizer, 4)
    state = copy.deepcopy(optimizer_state(optimizer, whole))
    second = copy.deepcopy(whole)
    again = kind(parameter_groups(second), lr=0.5)
    load_optimizer_state(again, second, state)
    expected = stepped(whole, optimizer, 3)
    assert all(map(torch.equal, stepped(second, again, 3), expected))


def test_state_of_other_parameters_is_refused():
    module = model()
    optimizer = torch.optim.AdamW(parameter_groups(module))
    stepped(module, optimizer, 1)
    state = optimizer_state(optimizer, module)
    other = torch.nn.Linear(3, 4)
    with pytest.raises(IncompatibleCheckpointError, match="other parameters"):
        load_optimizer_state(torch.optim.AdamW(parameter_groups(other)), other, state)


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), float(np.random.rand())


def test_generators_go_on_where_they_were():
    seed_rngs(7)
    draws()
    random.gauss(0, 1)
    state = rng_state()
    expected = draws(), random.gauss(0, 1)
    seed_rngs(8)
    load_rng_state(state)
    assert (draws(), random.gauss(0, 1)) == expected


def test_a_seed_decides_every_generator():
    seed_rngs(7)
    first = draws()
    seed_rngs(7)
    assert draws() == first
    seed_rngs(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_moments_follow_the_names_where_parameters_have_changed_places():
    first, second = (torch.nn.Parameter(torch.full((2,), value)) for value in (1.0, 2.0))
    saved_of = torch.nn.ParameterDict({"first": first, "second": second})
    optimizer = torch.optim.Adam([first, second])
    (first.sum() + 5 * second.sum()).backward()
    optimizer.step()
    state = optimizer_state(optimizer, saved_of)
    swapped = torch.optim.Adam([second, first])
    load_optimizer_state(swapped, saved_of, state)
    for parameter in (first, second):
        assert torch.equal(swapped.state[parameter]["exp_avg"], optimizer.state[parameter]["exp_avg"])


def test_the_same_parameters_in_other_groups_are_refused():
    module = model()
    state = optimizer_state(torch.optim.SGD(module.parameters()), module)
    with pytest.raises(IncompatibleCheckpointError, match="groups them otherwise"):
        load_optimizer_state(torch.optim.SGD(parameter_groups(module)), module, state)


def test_options_that_the_config_sets_stay_and_what_the_optimizer_keeps_comes_back():
    module = model()
    state = optimizer_state(torch.optim.SGD(module.parameters(), lr=0.5, momentum=0.9), module)
    state["param_groups"][0]["count"] = 7
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.2)
    load_optimizer_state(optimizer, module, state, options=("momentum",))
    (group,) = optimizer.param_groups
    assert (group["momentum"], group["lr"], group["count"]) == (0.2, 0.5, 7)
