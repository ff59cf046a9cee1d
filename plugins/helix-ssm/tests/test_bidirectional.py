from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers import protocol
from helix_ssm.layers.attention import Attention
from helix_ssm.layers.bidirectional import Bidirectional
from helix_ssm.layers.language_model import LanguageModel
from helix_ssm.layers.mamba import Mamba


class TestSum(LayerSuite):
    def make_layer(self):
        return Bidirectional(self.d_model)


class TestConcatOfOneSharedLayer(LayerSuite):
    def make_layer(self):
        return Bidirectional(self.d_model, mixer=Attention, combine="concat", share=True)


class GRU(nn.GRU):
    """Torch's own recurrence in one direction, as wide as the model."""

    def __init__(self, d_model):
        super().__init__(d_model, d_model, batch_first=True)

    def forward(self, x):
        return super().forward(x)[0]

    def init_state(self, batch_size, *, device=None, dtype=None):
        raise NotImplementedError


@pytest.fixture(name="pair")
def fixture_pair():
    """Return torch's bidirectional GRU, and ours with its weights, both outputs side by side."""
    torch.manual_seed(0)
    theirs = nn.GRU(4, 4, batch_first=True, bidirectional=True).double()
    ours = Bidirectional(4, mixer=GRU, combine="concat").double()
    weights = theirs.state_dict()
    ours.ahead.load_state_dict({name: w for name, w in weights.items() if not name.endswith("_reverse")})
    ours.back.load_state_dict(
        {name.removesuffix("_reverse"): w for name, w in weights.items() if name.endswith("_reverse")}
    )
    ours.out_proj = nn.Identity()
    return theirs, ours


def test_agrees_with_torchs_bidirectional_gru(pair):
    theirs, ours = pair
    x = torch.randn(3, 9, 4).double()
    torch.testing.assert_close(ours(x), theirs(x)[0])


def test_padded_rows_agree_with_torchs_packed_ones(pair):
    theirs, ours = pair
    x, lengths = torch.randn(3, 9, 4).double(), torch.tensor([9, 4, 1])
    packed = pack_padded_sequence(x, lengths, batch_first=True)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(ours(x, mask=torch.arange(9) < lengths[:, None]), expected)


def test_padding_may_stand_on_either_side():
    layer, x = Bidirectional(8).double(), torch.randn(2, 6, 8).double()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    y = layer(x, mask=mask)
    torch.testing.assert_close(y[:1, 2:], layer(x[:1, 2:]))
    torch.testing.assert_close(y[1:, :3], layer(x[1:, :3]))
    assert not y[~mask].any()


def test_the_sum_is_of_both_directions():
    layer, x = Bidirectional(8), torch.randn(2, 6, 8)
    torch.testing.assert_close(layer(x), layer.ahead(x) + layer.back(x.flip(1)).flip(1))


def test_a_shared_layer_treats_both_directions_alike():
    layer, x = Bidirectional(8, share=True), torch.randn(2, 6, 8)
    torch.testing.assert_close(layer(x.flip(1)), layer(x).flip(1))
    assert sum(p.numel() for p in layer.parameters()) == sum(p.numel() for p in Mamba(8).parameters())


def test_the_future_reaches_the_past():
    layer, x = Bidirectional(8), torch.randn(1, 6, 8)
    other = torch.cat([x[:, :5], torch.randn(1, 1, 8)], dim=1)
    assert not torch.isclose(layer(x)[:, 0], layer(other)[:, 0]).any()


def test_it_keeps_no_state():
    model = LanguageModel(8, n_layers=1, mixer=Bidirectional)
    for call in (
        lambda: model.init_state(1),
        lambda: protocol.extend(Bidirectional(8), torch.zeros(1, 2, 8), ()),
        lambda: protocol.step(Bidirectional(8), torch.zeros(1, 8), ()),
    ):
        with pytest.raises(ArgumentError, match="Bidirectional looks ahead, so that no state can be kept"):
            call()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"combine": "summ"}, "'summ', allowed are 'sum', 'concat'. Did you mean 'sum'"),
        ({"mixer": partial(Attention, causal=False)}, "mixer makes Attention, which looks ahead by itself"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        Bidirectional(**{"d_model": 8, **wrong})
