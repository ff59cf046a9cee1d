import inspect
import math

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helix_kernel.errors import ArgumentError
from helix_train.schedules import config, decay

CLASSES = [decay.Constant, decay.Linear, decay.Exponential, decay.Cosine]


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (decay.Constant(total_steps=4), [1, 1, 1, 1, 1]),
        (decay.Linear(total_steps=4), [1, 0.75, 0.5, 0.25, 0]),
        (decay.Linear(total_steps=4, final=0.2), [1, 0.8, 0.6, 0.4, 0.2]),
        (decay.Exponential(total_steps=4, final=1 / 16), [1, 1 / 2, 1 / 4, 1 / 8, 1 / 16]),
        (decay.Cosine(total_steps=4), [1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4, 0]),
        (
            decay.Cosine(total_steps=4, final=0.5),
            [1, (6 + math.sqrt(2)) / 8, 0.75, (6 - math.sqrt(2)) / 8, 0.5],
        ),
        (decay.Constant(total_steps=4, warmup_steps=2), [0.5, 1, 1, 1, 1]),
        (decay.Linear(total_steps=6, warmup_steps=2), [0.5, 1, 1, 0.75, 0.5, 0.25, 0]),
        (decay.Cosine(total_steps=4, warmup_steps=4), [0.25, 0.5, 0.75, 1, 0]),
        (decay.Cosine(total_steps=2, warmup_steps=4), [0.25, 0.5]),
        (decay.Linear(total_steps=1), [1, 0]),
    ],
)
def test_values(schedule, values):
    assert [schedule(step) for step in range(len(values))] == pytest.approx(values, abs=1e-15)


@pytest.mark.parametrize("make", CLASSES)
@given(total=st.integers(1, 500), warmup=st.integers(0, 600), step=st.integers(0, 1500))
@settings(max_examples=60, deadline=None)
def test_rises_then_falls_and_never_leaves_zero_to_one(make, total, warmup, step):
    schedule = make(total_steps=total, warmup_steps=warmup)
    here, after = schedule(step), schedule(step + 1)
    assert 0 <= here <= 1
    assert here < after if step + 1 < warmup else after <= here


@pytest.mark.parametrize("make", CLASSES)
def test_stays_at_its_last_value_after_the_end(make):
    schedule = make(total_steps=10, warmup_steps=3)
    assert schedule(10) == schedule(11) == schedule(10**9)


def test_cosine_is_torchs():
    import torch

    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=0.1)
    ours = decay.Cosine(total_steps=50, final=0.1)
    for step in range(50):
        assert ours(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (decay.Constant, {"total_steps": 0}, "total_steps is 0, allowed is >= 1"),
        (decay.Cosine, {"total_steps": 5, "warmup_steps": -1}, "warmup_steps is -1, allowed is >= 0"),
        (decay.Linear, {"total_steps": 5, "final": -0.1}, "final is -0.1, allowed is >= 0"),
        (decay.Linear, {"total_steps": 5, "final": math.nan}, "final is nan, allowed is >= 0"),
        (decay.Exponential, {"total_steps": 5, "final": 0}, "final is 0, which no factor reaches"),
    ],
)
def test_wrong_arguments_are_said(make, options, words):
    with pytest.raises(ArgumentError, match=words):
        make(**options)


@pytest.mark.parametrize("make", CLASSES)
def test_config_and_class_take_the_same_options(make):
    fields = attrs.fields(getattr(config, f"{make.__name__}Config"))
    options = {
        field.name: inspect.Parameter.empty if field.default is attrs.NOTHING else field.default
        for field in fields
    }
    assert options == {
        name: parameter.default for name, parameter in inspect.signature(make).parameters.items()
    }
