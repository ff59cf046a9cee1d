from __future__ import annotations

import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.rwkv7_channel_mix import RWKV7ChannelMix


class TestRWKV7ChannelMix(LayerSuite):
    def make_layer(self):
        return RWKV7ChannelMix(self.d_model)


class TestNarrowRWKV7ChannelMix(LayerSuite):
    def make_layer(self):
        return RWKV7ChannelMix(self.d_model, d_hidden=3)


def test_is_the_papers_formula():
    torch.manual_seed(0)
    layer = RWKV7ChannelMix(4, d_hidden=6)
    torch.nn.init.normal_(layer.x_k)
    x, before = torch.randn(1, 5, 4), torch.zeros(4)
    for t, x_t in enumerate(x[0]):
        mixed = (1 - layer.x_k) * x_t + layer.x_k * before
        expected = layer.out_proj.weight @ torch.clamp(layer.key.weight @ mixed, min=0) ** 2
        torch.testing.assert_close(layer(x)[0, t], expected)
        before = x_t


def test_begins_as_the_authors_layer_in_mid_stack():
    layer = RWKV7ChannelMix(16)
    torch.testing.assert_close(layer.x_k, torch.nn.Parameter(1 - (torch.arange(16.0) / 16) ** 0.0625))
    assert layer.x_k._no_weight_decay
    assert layer.key.weight.shape == (64, 16)
    assert 0.1 < layer.key.weight.abs().max() <= 0.125


def test_autocast_and_half_precision_keep_the_states_dtype():
    layer, x = RWKV7ChannelMix(8), torch.randn(2, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    assert RWKV7ChannelMix(8).bfloat16().init_state(2).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{"d_model": 0}, {"d_hidden": 0}])
def test_a_wrong_argument_is_named(wrong):
    with pytest.raises(ArgumentError, match=f"rwkv7-channel-mix: {next(iter(wrong))} is 0"):
        RWKV7ChannelMix(**{"d_model": 8, **wrong})
