from __future__ import annotations

import pytest
import torch
from transformers.models.qwen3_next.configuration_qwen3_next import Qwen3NextConfig
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.gated_deltanet import GatedDeltaNet


class TestGatedDeltaNet(LayerSuite):
    def make_layer(self):
        return GatedDeltaNet(self.d_model)


class TestGatedDeltaNetWithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return GatedDeltaNet(
            self.d_model, n_heads=3, head_dim=4, expand_v=1.5, d_conv=1, gate=False, allow_neg_eigval=True
        )


def theirs(d_model, n_heads, head_dim, v_dim):
    return Qwen3NextGatedDeltaNet(
        Qwen3NextConfig(
            hidden_size=d_model,
            linear_num_key_heads=n_heads,
            linear_num_value_heads=n_heads,
            linear_key_head_dim=head_dim,
            linear_value_head_dim=v_dim,
            linear_conv_kernel_dim=4,
            rms_norm_eps=1e-5,
            layer_types=["linear_attention"],
            num_hidden_layers=1,
        ),
        layer_idx=0,
    )


def in_their_order(layer):
    """Their projections hold head by head what ours hold matrix by matrix."""
    heads = [
        getattr(layer, f"{name}_proj").weight.unflatten(0, (layer.n_heads, -1))
        for name in ("q", "k", "v", "g")
    ]
    ba = torch.stack([layer.b_proj.weight, layer.a_proj.weight], dim=1)
    return {
        "in_proj_qkvz.weight": torch.cat(heads, dim=1).flatten(0, 1),
        "in_proj_ba.weight": ba.flatten(0, 1),
        "conv1d.weight": torch.cat([getattr(layer, f"{name}_conv1d").weight for name in "qkv"]),
        "A_log": layer.A_log,
        "dt_bias": layer.dt_bias,
        "norm.weight": layer.o_norm.weight,
        "out_proj.weight": layer.out_proj.weight,
    }


def test_agrees_with_transformers():
    torch.manual_seed(0)
    layer = GatedDeltaNet(24, n_heads=3, head_dim=8, expand_v=1.5)
    torch.nn.init.normal_(layer.o_norm.weight)
    oracle = theirs(24, 3, 8, 12)
    oracle.load_state_dict(in_their_order(layer))
    x = torch.randn(2, 90, 24)
    torch.testing.assert_close(layer(x), oracle(x), rtol=1e-4, atol=1e-5)


def test_negative_eigenvalues_double_the_write():
    torch.manual_seed(0)
    layer, twin = GatedDeltaNet(8), GatedDeltaNet(8, allow_neg_eigval=True)
    x = torch.randn(2, 5, 8)
    twin.load_state_dict(layer.state_dict())
    torch.testing.assert_close(twin._gates(x)[1], 2 * layer._gates(x)[1])


def test_without_a_gate_outputs_are_normed_only():
    torch.manual_seed(0)
    layer = GatedDeltaNet(8, gate=False)
    layer.out_proj.weight.data = torch.eye(16)[:8]
    y = torch.cat([layer(1000 * torch.randn(1, 1, 8)) for _ in range(20)])
    assert "g_proj.weight" not in dict(layer.named_parameters())
    assert y.abs().max() <= 16**0.5


def test_decays_begin_between_the_authors_bounds():
    layer = GatedDeltaNet(512, head_dim=1)
    dt = torch.nn.functional.softplus(layer.dt_bias)
    assert 1e-3 * 0.999 <= dt.min() < 2e-3
    assert 0.05 < dt.max() <= 0.1 * 1.001
    assert 0 < layer.A_log.exp().min() < 1
    assert 15 < layer.A_log.exp().max() <= 16.001
    assert all(layer.get_parameter(name)._no_weight_decay for name in ("A_log", "dt_bias"))


@pytest.mark.parametrize(
    ("given", "heads"),
    [
        ({}, (2, 48)),
        ({"n_heads": 4}, (4, 24)),
        ({"head_dim": 32}, (3, 32)),
        ({"n_heads": 5, "head_dim": 7}, (5, 7)),
    ],
)
def test_heads_share_the_width(given, heads):
    layer = GatedDeltaNet(96, **given)
    assert (layer.n_heads, layer.k_dim) == heads
    assert layer.init_state(1).memory.shape == (1, heads[0], heads[1], 2 * heads[1])


def test_autocast_keeps_the_memory_in_float32():
    torch.manual_seed(0)
    layer, x = GatedDeltaNet(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert {tensor.dtype for tensor in state} == {torch.float32}
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_memory_in_float32():
    state = GatedDeltaNet(16).bfloat16().init_state(2)
    assert (state.v_conv.dtype, state.memory.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"d_conv": 0}, "d_conv is 0"),
        ({"n_heads": 3}, "n_heads is 3, allowed is a divisor of d_model=8"),
        ({"head_dim": 3}, "head_dim is 3, allowed is a divisor of d_model=8"),
        (
            {"head_dim": 1, "expand_v": 1.5},
            "expand_v is 1.5, allowed is what makes whole values of head_dim=1",
        ),
        ({"expand_v": 0.0}, "expand_v is 0.0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"gated-deltanet: {message}"):
        GatedDeltaNet(**{"d_model": 8, **wrong})
