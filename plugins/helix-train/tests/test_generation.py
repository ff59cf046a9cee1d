"""Continuing a prompt: what is sampled, and that streaming equals reading everything again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import toy_lm

import helix_train.generation
from helix_kernel.errors import ArgumentError
from helix_train.generation import decode_stream, generate_bytes, generate_text


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
    assert 0 <= next(generate_bytes(model, b"abc", 10**9)) < 256


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


@pytest.mark.parametrize("says_so", [True, False])
def test_a_model_of_more_than_bytes_wants_a_tokenizer(says_so):
    model = toy_lm.Model(vocab_size=300)
    if says_so:
        model.vocab_size = 300
    with pytest.raises(ArgumentError, match=r"300 ids, more than the 256 of bytes.*--tokenizer path/to"):
        next(generate_bytes(model, b"a", 3))


def test_a_long_prompt_is_read_in_chunks_with_the_same_outcome(model, monkeypatch):
    lengths = []
    extend = model.extend
    monkeypatch.setattr(model, "extend", lambda ids, s: lengths.append(ids.shape[1]) or extend(ids, s))
    whole = list(generate_bytes(model, b"abcdefghijk", 5, temperature=0))
    monkeypatch.setattr(helix_train.generation, "_CHUNK", 4)
    lengths.clear()
    assert list(generate_bytes(model, b"abcdefghijk", 5, temperature=0)) == whole
    assert lengths[:3] == [4, 4, 3]


class Syllables:
    """Ids of one to three bytes of "aé日": 0 a, 1 é, 2 and 3 the halves of é, 4 to 6 the thirds of 日."""

    pieces = (b"a", "é".encode(), b"\xc3", b"\xa9", b"\xe6", b"\x97", b"\xa5", b"")
    vocab_size = len(pieces)

    def encode(self, data):
        return [self.pieces.index(bytes([byte])) for byte in data]

    def decode(self, ids):
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace").encode()


class TestText:
    def said(self, ids, context=()):
        return [piece.decode() for piece in decode_stream(Syllables(), context, ids)]

    def test_pieces_end_where_characters_do(self):
        assert self.said([0, 1, 2, 3, 4, 5, 6, 0]) == ["a", "é", "é", "日", "a"]

    def test_what_is_left_of_a_character_is_said_at_the_end(self):
        assert self.said([0, 4, 5]) == ["a", "\N{REPLACEMENT CHARACTER}"]
        assert self.said([0, 4, 5, 6]) == ["a", "日"]

    def test_a_character_that_the_context_began_is_ended(self):
        assert b"".join(decode_stream(Syllables(), [0, 2], [3, 0])).decode()[-1] == "a"

    @pytest.mark.parametrize("n_before", [1, 20])
    def test_a_space_that_decoders_drop_at_a_beginning_is_kept(self, n_before):
        words = SimpleNamespace(decode=lambda ids: (b" word" * len(ids)).removeprefix(b" "))
        assert list(decode_stream(words, [0] * n_before, [0] * 12)) == [b" word"] * 12

    @pytest.mark.parametrize("n_tokens", [0, 1, 30])
    def test_the_context_is_not_said_again(self, n_tokens):
        assert "".join(self.said([1] * n_tokens, context=[0] * 20)) == "é" * n_tokens

    def test_it_ends_with_the_token_that_reaches_the_bytes(self):
        model = Fixed([0.0, 9.0, *[0.0] * 6])
        pieces = list(generate_text(model, b"a", 5, tokenizer=Syllables(), temperature=0))
        assert pieces == ["é".encode()] * 3

    def test_tokens_without_text_do_not_go_on_for_ever(self):
        model = Fixed([*[0.0] * 7, 9.0])
        assert list(generate_text(model, b"a", 5, tokenizer=Syllables(), temperature=0)) == [b""] * 5

    def test_it_is_the_models_own_continuation(self, model):
        tokenizer = plain_bytes()
        expected = bytes(generate_bytes(model, b"abc", 12, temperature=0.7, top_k=4, seed=2))
        options = {"temperature": 0.7, "top_k": 4, "seed": 2}
        for coder in (None, tokenizer):
            assert b"".join(generate_text(model, b"abc", 12, tokenizer=coder, **options)) == expected

    def test_an_id_that_the_model_lacks_is_said(self):
        model = Fixed([0.0, 1.0])
        model.vocab_size = 2
        with pytest.raises(ArgumentError, match="prompt holds the id 2, allowed by the model is 0 to 1"):
            generate_text(model, b"a\xc3", 5, tokenizer=Syllables())

    @pytest.mark.parametrize(("prompt", "n_bytes"), [(b"", 3), (b"a", 0)])
    def test_wrong_arguments_are_said_before_anything_is_made(self, model, prompt, n_bytes):
        with pytest.raises(ArgumentError, match=r"prompt is empty|n_bytes is 0"):
            generate_text(model, prompt, n_bytes, tokenizer=Syllables())


def plain_bytes():
    """A tokenizer of bytes that, unlike helix-data's, is written here."""
    return SimpleNamespace(encode=list, decode=bytes)
