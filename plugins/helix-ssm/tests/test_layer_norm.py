from __future__ import annotations

import pytest
import torch
from torch import nn

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.layer_norm import LayerNorm


class TestLayerNorm(LayerSuite):
    def make_layer(self):
        return LayerNorm(self.d_model)


class TestGroups(LayerSuite):
    def make_layer(self):
        return LayerNorm(self.d_model, n_groups=2, bias=False)


@pytest.mark.parametrize("bias", [True, False])
def test_agrees_with_torchs(bias):
    ours, theirs = LayerNorm(6, eps=1e-3, bias=bias), nn.LayerNorm(6, eps=1e-3, bias=bias)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 5, 6)
    torch.testing.assert_close(ours(x), theirs(x))


def test_each_group_of_channels_is_normalised_apart():
    x = 3 + 2 * torch.randn(2, 5, 6).double()
    groups = LayerNorm(6, n_groups=2).double()(x).view(2, 5, 2, 3)
    torch.testing.assert_close(groups.mean(-1), torch.zeros(2, 5, 2).double())
    spread = x.view(2, 5, 2, 3).var(-1, correction=0)
    torch.testing.assert_close(groups.var(-1, correction=0), spread / (spread + 1e-5))


def test_print_shows_its_options():
    assert repr(LayerNorm(6, n_groups=3)) == "LayerNorm(6, n_groups=3, eps=1e-05)"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_groups": 4}, "n_groups is 4, allowed is a divisor of d_model=6"),
        ({"eps": -1.0}, "eps is -1.0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=message):
        LayerNorm(**{"d_model": 6, **wrong})
