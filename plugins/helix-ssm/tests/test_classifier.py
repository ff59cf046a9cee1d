from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.attention import Attention
from helix_ssm.layers.bidirectional import Bidirectional
from helix_ssm.layers.classifier import Classifier
from helix_ssm.layers.mamba import Mamba
from helix_ssm.layers.moe import MoE

VOCAB_SIZE = 11
POOLINGS = ("last", "mean", "max", "attention")


class ClassifierSuite(LayerSuite):
    def inputs(self, batch_size, seq_len, *, dtype, seed=0):
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(VOCAB_SIZE, (batch_size, seq_len), generator=generator)

    def output_shape(self, x):
        return (len(x), 3)


class TestLast(ClassifierSuite):
    def make_layer(self):
        return Classifier(
            self.d_model, n_classes=3, n_layers=2, mixer=Mamba, vocab_size=VOCAB_SIZE, pooling="last"
        )


class TestAttentionPoolingOverAPattern(ClassifierSuite):
    def make_layer(self):
        pattern = [Bidirectional, Attention]
        return Classifier(
            self.d_model, n_classes=3, pattern=pattern, vocab_size=VOCAB_SIZE, pooling="attention"
        )


def make(pooling, **options):
    torch.manual_seed(0)
    return Classifier(8, n_classes=3, n_layers=1, mixer=Mamba, pooling=pooling, **options).double()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_changes_nothing(pooling):
    model, ids = make(pooling), torch.randint(256, (3, 6))
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [1] * 6]).bool()
    expected = torch.cat([model(ids[:1, 2:]), model(ids[1:2, :2]), model(ids[2:])])
    torch.testing.assert_close(model(ids, mask=mask), expected)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_poolings_are_what_they_say(pooling):
    model, ids = make(pooling), torch.randint(256, (2, 6))
    x = model.encoder(ids)
    pooled = {
        "last": lambda: x[:, -1],
        "mean": lambda: x.mean(1),
        "max": lambda: x.max(1).values,
        "attention": lambda: torch.einsum("bt,btd->bd", (x @ model.score.weight[0]).softmax(1), x),
    }[pooling]()
    torch.testing.assert_close(model(ids), model.head(pooled))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_it_learns_whether_a_token_occurs(pooling):
    torch.manual_seed(0)
    model = Classifier(16, n_layers=1, mixer=Attention, pooling=pooling, vocab_size=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2)
    for _ in range(60):
        ids = torch.randint(8, (32, 6))
        target = (ids == 3).any(1).long()
        loss = F.cross_entropy(model(ids), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ids = torch.randint(8, (256, 6))
    assert (model(ids).argmax(1) == (ids == 3).any(1)).float().mean() > 0.9


def test_auxiliary_losses_come_through_and_checkpointing_is_taken_on():
    model = make("mean", channel=MoE)
    model.set_activation_checkpointing(enabled=True)
    loss = model(torch.randint(256, (2, 6))).sum()
    assert model.auxiliary_loss().requires_grad
    (loss + model.auxiliary_loss()).backward()
    assert make("mean").auxiliary_loss() is None


def test_a_row_without_ids_is_refused():
    model, ids = make("mean"), torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ArgumentError, match="a row has no id that counts"):
        model(ids[:, :0])
    with pytest.raises(ArgumentError, match="a row has no id that counts"):
        model(ids, mask=torch.tensor([[True] * 3, [False] * 3]))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_classes": 0}, "n_classes is 0"),
        ({"n_layers": None}, "n_layers is missing"),
        ({"pooling": "mea"}, "'mea', allowed are 'last', 'mean', 'max', 'attention'. Did you mean 'mean'"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        Classifier(**{"d_model": 8, "n_layers": 1, "mixer": Mamba, **wrong})
