from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.attention import Attention
from helix_ssm.layers.bidirectional import Bidirectional
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.mlp import MLP
from helix_ssm.layers.moe import MoE
from helix_ssm.layers.span_infiller import SpanInfiller

VOCAB_SIZE = 11
MASK_ID = VOCAB_SIZE


class SpanInfillerSuite(LayerSuite):
    def inputs(self, batch_size, seq_len, *, dtype, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(VOCAB_SIZE + 1, (batch_size, seq_len), generator=generator)

    def output_shape(self, x):
        return (*x.shape, VOCAB_SIZE)


class TestMamba(SpanInfillerSuite):
    def make_layer(self):
        return SpanInfiller(self.d_model, n_layers=1, mixer=Mamba, vocab_size=VOCAB_SIZE)


class TestPatternWithChannelLayer(SpanInfillerSuite):
    def make_layer(self):
        pattern = [Mamba, partial(Attention, causal=False)]
        return SpanInfiller(
            self.d_model, pattern=pattern, channel=MLP, vocab_size=VOCAB_SIZE, tie_embeddings=False
        )


def test_a_layer_that_keeps_a_state_is_made_to_look_both_ways_and_no_other():
    pattern = [Mamba, partial(Attention, causal=False), MLP]
    model = SpanInfiller(8, pattern=pattern, channel=Mamba)
    assert [type(block.mixer) for block in model.encoder.blocks] == [Bidirectional, Attention, MLP]
    assert {type(block.channel) for block in model.encoder.blocks} == {Bidirectional}


def test_what_comes_after_a_blank_changes_what_fills_it():
    torch.manual_seed(0)
    model = SpanInfiller(8, n_layers=1, mixer=Mamba, vocab_size=VOCAB_SIZE)
    ids = torch.tensor([[1, MASK_ID, 2], [1, MASK_ID, 3]])
    one, other = model(ids)[:, 1]
    assert not torch.isclose(one, other).all()


def test_a_tied_head_is_the_tokens_embeddings():
    model = SpanInfiller(8, n_layers=1, mixer=Mamba, vocab_size=VOCAB_SIZE)
    ids = torch.randint(VOCAB_SIZE + 1, (2, 5))
    torch.testing.assert_close(model(ids), model.encoder(ids) @ model.encoder.embedding.weight[:MASK_ID].T)
    assert not [name for name in model.state_dict() if name.startswith("head")]


def test_the_mask_has_an_id_beyond_the_tokens():
    model = SpanInfiller(8, n_layers=1, mixer=Mamba)
    assert (model.mask_id, model.vocab_size, len(model.encoder.embedding.weight)) == (256, 257, 257)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    model = SpanInfiller(8, n_layers=2, mixer=Mamba, vocab_size=VOCAB_SIZE).double()
    ids, mask = torch.randint(VOCAB_SIZE, (2, 6)), torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6]).bool()
    logits = model(ids, mask=mask)
    torch.testing.assert_close(logits[:1, 2:], model(ids[:1, 2:]))
    torch.testing.assert_close(logits[1:], model(ids[1:]))
    assert not logits[0, :2].any()


def test_it_learns_to_fill_in_what_only_the_future_tells():
    """Each token is that which comes two places later: a model that reads the past alone cannot know it."""
    torch.manual_seed(0)
    model = SpanInfiller(16, n_layers=1, mixer=Attention, vocab_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(60):
        # The second half repeats the first, and blanks are in the first.
        half = torch.randint(8, (16, 2))
        targets = torch.cat([half, half], dim=1)
        mask = torch.zeros_like(targets, dtype=torch.bool)
        mask[:, torch.randint(2, ())] = True
        logits = model(targets.masked_fill(mask, model.mask_id))
        loss = F.cross_entropy(logits[mask], targets[mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.3 * torch.tensor(8.0).log().item()
    damaged = targets.masked_fill(mask, 0)
    filled = model.infill(damaged, mask)
    assert (filled == targets)[mask].float().mean() > 0.9
    assert filled[~mask].equal(targets[~mask])


def test_infilling_does_not_read_what_stands_in_blanks():
    model = SpanInfiller(8, n_layers=1, mixer=Mamba, vocab_size=VOCAB_SIZE)
    ids, mask = torch.randint(VOCAB_SIZE, (2, 9)), torch.rand(2, 9) < 0.4
    other = torch.where(mask, torch.randint(VOCAB_SIZE, (2, 9)), ids)
    assert model.infill(ids, mask).equal(model.infill(other, mask))
    assert model.infill(ids, mask).max() < VOCAB_SIZE


def test_activation_checkpointing_changes_no_gradient():
    torch.manual_seed(0)
    model, gradients = SpanInfiller(8, n_layers=2, mixer=Mamba, channel=MoE, vocab_size=VOCAB_SIZE), []
    ids = torch.randint(VOCAB_SIZE + 1, (2, 9))
    for enabled in (False, True):
        model.set_activation_checkpointing(enabled=enabled)
        model.zero_grad()
        (model(ids).square().mean() + model.auxiliary_loss()).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"mixer": None}, "one of mixer and pattern is needed"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        SpanInfiller(**{"d_model": 8, "n_layers": 1, "mixer": Mamba, **wrong})


def test_a_mask_of_another_shape_or_dtype_is_refused():
    model, ids = SpanInfiller(8, n_layers=1, mixer=Mamba), torch.zeros(2, 3, dtype=torch.int64)
    for mask in (torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 3)):
        with pytest.raises(ArgumentError, match=r"allowed is bool \(2, 3\)"):
            model.infill(ids, mask)
    with pytest.raises(ArgumentError, match=r"allowed is int64 \(B, L\)"):
        model(ids.float())
