"""Continuing a prompt: what is sampled, and that streaming equals reading everything again."""

from __future__ import annotations

import pytest
import torch
import toy_lm

from helix_kernel.errors import ArgumentError
from helix_train.generation import generate_bytes


@pytest.fixture
def model():
    torch.manual_seed(1)
    model = toy_lm.Model(d_model=16).eval()
    model.head.weight.data *= 8  # so that no choice hangs on rounding
    return model


class Fixed(toy_lm.Model):
    """Always the same logits."""

    def __init__(self, logits):
        super().__init__(vocab_size=len(logits))
        self.logits = torch.as_tensor(logits, dtype=torch.float32)

    def extend(self, ids, state):
        return self.logits.expand(*ids.shape, -1), state


def counts(logits, n_bytes=1500, **options):
    return torch.bincount(
        torch.tensor(list(generate_bytes(Fixed(logits), b"\0", n_bytes, **options))), minlength=len(logits)
    )


def test_temperature_zero_is_greedy_and_equals_reading_everything_again(model):
    text = list(b"abc")
    for _ in range(12):
        with torch.no_grad():
            text.append(int(model(torch.tensor([text]))[0, -1].argmax()))
    assert list(generate_bytes(model, b"abc", 12, temperature=0)) == text[3:]


def test_it_is_a_function_of_the_seed_alone(model):
    def sample(seed):
        return list(generate_bytes(model, b"abc", 30, temperature=3.0, seed=seed))

    first = sample(1)
    torch.rand(5)
    assert sample(1) == first != sample(2)


def test_bytes_are_drawn_with_the_models_probabilities_at_the_temperature():
    logits = torch.tensor([0.0, 1.0, 2.0])
    for temperature in (0.5, 1.0, 2.0):
        expected = torch.softmax(logits / temperature, dim=0)
        found = counts(logits, temperature=temperature) / 1500
        assert torch.allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("temperature", [1e-6, 1e-45])
def test_a_very_low_temperature_is_the_likeliest_byte(temperature):
    assert counts([1.0, 3.0, 2.0], 20, temperature=temperature).tolist() == [0, 20, 0]


def test_top_k_takes_exactly_so_many_even_of_equals():
    assert int((counts([1.0, 1.0, 1.0, 0.0], top_k=2) > 0).sum()) == 2
    found = counts([1.0, 0.0, 2.0, -1.0], top_k=2) / 1500
    assert torch.allclose(found, torch.tensor([0.269, 0.0, 0.731, 0.0]), atol=0.05)


@pytest.mark.parametrize("top_k", [0, 3, 999])
def test_top_k_of_all_is_all(top_k):
    assert (counts([0.0, 0.1, 0.2], 300, top_k=top_k) > 0).all()


def test_a_byte_costs_one_step_and_the_last_none(model, monkeypatch):
    calls = []
    step = model.step
    monkeypatch.setattr(model, "step", lambda ids, state: calls.append(ids.tolist()) or step(ids, state))
    made = list(generate_bytes(model, b"abc", 5))
    assert calls == [[byte] for byte in made[:-1]]


def test_bytes_come_one_by_one(model):
    stream = generate_bytes(model, b"abc", 10**9)
    assert 0 <= next(stream) < 256
    stream.close()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": b""}, "prompt is empty"),
        ({"n_bytes": 0}, "n_bytes is 0, allowed is >= 1"),
        ({"temperature": -0.1}, "temperature is -0.1, allowed is >= 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1, allowed is >= 0"),
        ({"model": torch.nn.Linear(2, 2)}, r"Linear has no init_state\(\); it cannot generate"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_is_refused_before_the_first_byte(model, changes, message):
    arguments = {"model": model, "prompt": b"a", "n_bytes": 3, **changes}
    with pytest.raises(ArgumentError, match=message):
        generate_bytes(**arguments)


def test_a_model_of_more_than_bytes_is_refused():
    with pytest.raises(ArgumentError, match="300 tokens; allowed is one over bytes"):
        next(generate_bytes(toy_lm.Model(vocab_size=300), b"a", 3))
