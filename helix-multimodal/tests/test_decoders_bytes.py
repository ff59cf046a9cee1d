"""Bytes, each after those before it."""

import math

import pytest
import torch
from torch import nn

from helix_kernel import default_kernel
from helix_kernel.errors import ArgumentError
from helix_multimodal.decoders.bytes import Bytes
from helix_multimodal.decoders.stretch import Stretch
from helix_multimodal.encoders.element_bytes import to_bytes
from helix_multimodal.encoders.positions import Positions
from helix_multimodal.inputs import Padded, Tokens, pad
from helix_multimodal.testing.batches import tokens_for


def layer(name):
    return default_kernel().factory("layer", {"use": name})


def decoder(patch=4, **options):
    torch.manual_seed(0)
    return Bytes(8, patch=patch, layers=[layer("mamba")], local=[layer("min-gru")], **options).double().eval()


def text(*lines):
    return pad([torch.tensor(list(line), dtype=torch.uint8) for line in lines])


def test_a_byte_sees_those_before_it_and_no_other():
    model, batch = decoder(), text(b"abcdefghijk")
    tokens = tokens_for(batch, 8)
    logits = model(tokens, batch)
    for place in range(11):
        changed = batch.values.clone()
        changed[0, place] = 7
        other = model(tokens, Padded(changed, batch.sizes))
        differs = (other != logits).any(-1)[0, :11]
        assert differs.nonzero().flatten().tolist() == list(range(place + 1, 11))


def test_the_loss_is_of_a_proper_distribution_over_all_texts_of_one_byte():
    model = decoder()
    every = text(*[bytes([byte]) for byte in range(256)])
    tokens = Tokens(torch.ones(256, 1, 8).double(), torch.ones(256, 1, dtype=torch.bool))
    probabilities = (-model.loss(model(tokens, every), every)).detach().exp()
    assert float(probabilities.sum()) == pytest.approx(1)


def test_the_loss_is_the_mean_of_the_bytes_own():
    model, batch = decoder(), text(b"abcdef")
    logits = model(tokens_for(batch, 8), batch)
    expected = nn.functional.cross_entropy(logits[0, :6], batch.values[0].long())
    torch.testing.assert_close(model.loss(logits, batch), expected[None])


@pytest.mark.parametrize("length", [1, 4, 9])
def test_every_byte_made_is_the_likeliest_after_those_before_it(length):
    model = decoder()
    tokens = tokens_for(text(b"x", b"y"), 8)
    made = model.reconstruct(tokens, torch.tensor([[length], [max(1, length - 2)]]))
    likeliest = model(tokens, made).argmax(-1)[:, :length]
    own = made.within(0)
    assert likeliest[own].equal(made.values[own].long())


def test_what_it_learnt_by_heart_comes_back():
    torch.manual_seed(0)
    model = Bytes(16, patch=4, layers=[layer("mamba")], local=[layer("min-gru")])
    batch = text(b"to be or not", b"hello", b"\xff\x00\xfe")
    tokens = tokens_for(batch, 16, missing=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(model(tokens, batch), batch).mean().backward()
        optimizer.step()
    assert float(model.loss(model(tokens, batch), batch).detach().max()) < 0.1
    assert model.reconstruct(tokens, batch.sizes).values.equal(batch.values)


@pytest.mark.parametrize(("values", "sizes"), [("int32", [3, 2, 2]), ("float32", [1, 9])])
def test_other_dtypes_are_made(values, sizes):
    model = decoder(values=values)
    made = model.reconstruct(tokens_for(text(b"x"), 8), torch.tensor([sizes]))
    assert made.values.dtype == getattr(torch, values)
    assert list(made.values.shape) == [1, *sizes]
    likeliest = model(tokens_for(text(b"x"), 8), made).argmax(-1)
    data, lengths = to_bytes(made)
    assert lengths.tolist() == [2 * math.prod(sizes)]
    # Samples of 16 bits hold -32768 .. 32767, and a float is cut at -1: that one pair of bytes may differ.
    assert (likeliest[:, : data.shape[1]] == data).double().mean() > 0.9


def test_a_batch_of_another_dtype_is_refused():
    batch = pad([torch.zeros(1, 5)])
    with pytest.raises(ArgumentError, match=r"values of torch.float32, allowed is torch.uint8"):
        decoder()(tokens_for(batch, 8), batch)


def test_layers_that_look_ahead_are_refused():
    with pytest.raises(ArgumentError, match="Bidirectional looks ahead, and would see the byte"):
        Bytes(8, local=[layer("bidirectional")])


@pytest.mark.parametrize(
    ("n_tokens", "n_places", "covering", "first"),
    [
        (1, 3, [0, 0, 0], [0, 0, 0]),
        (2, 4, [0, 0, 1, 1], [0, 0, 2, 2]),
        (3, 3, [0, 1, 2], [0, 1, 2]),
        (2, 5, [0, 0, 0, 1, 1], [0, 0, 0, 3, 3]),
        (4, 2, [0, 2], [0, 1]),
    ],
)
def test_tokens_share_the_places(n_tokens, n_places, covering, first):
    torch.manual_seed(0)
    stretch = Stretch(8).double()
    values = torch.randn(1, n_tokens, 8, dtype=torch.float64)
    tokens = Tokens(values, torch.ones(1, n_tokens, dtype=torch.bool))
    found = stretch(tokens, torch.tensor([n_places]), n_places)
    assert isinstance(stretch.positions, Positions)
    within = stretch.positions((n_places,), values)[torch.arange(n_places) - torch.tensor(first)]
    torch.testing.assert_close(found, stretch.in_proj(values[:, covering]) + within)
