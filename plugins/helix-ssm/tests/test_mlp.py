from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from transformers.activations import ACT2FN

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.mlp import MLP, Linear


class TestLinear(LayerSuite):
    def make_layer(self):
        return Linear(self.d_model)


class TestNarrowingLinear(LayerSuite):
    def make_layer(self):
        return Linear(self.d_model, d_out=3, bias=False)

    def output_shape(self, x):
        return (*x.shape[:-1], 3)


class TestSwiGLU(LayerSuite):
    def make_layer(self):
        return MLP(self.d_model)


class TestSquaredReLU(LayerSuite):
    def make_layer(self):
        return MLP(self.d_model, activation="relu2", bias=True)


def test_linear_is_torchs_linear():
    layer, x = Linear(4, d_out=3), torch.randn(2, 5, 4)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


FUNCTIONS = {"silu": F.silu, "gelu": F.gelu, "relu2": ACT2FN["relu2"], "swiglu": F.silu, "geglu": F.gelu}


@pytest.mark.parametrize("activation", ["silu", "gelu", "relu2"])
def test_plain_mlp_is_linear_activation_linear(activation):
    layer, x = MLP(4, d_hidden=6, activation=activation, bias=True), torch.randn(2, 5, 4)
    hidden = FUNCTIONS[activation](F.linear(x, layer.in_proj.weight, layer.in_proj.bias))
    torch.testing.assert_close(layer(x), F.linear(hidden, layer.out_proj.weight, layer.out_proj.bias))


@pytest.mark.parametrize("activation", ["swiglu", "geglu"])
def test_a_gated_mlp_gates_its_second_half_by_its_first(activation):
    layer, x = MLP(4, d_hidden=6, activation=activation), torch.randn(2, 5, 4)
    gate, value = x @ layer.in_proj.weight[:6].T, x @ layer.in_proj.weight[6:].T
    torch.testing.assert_close(layer(x), (FUNCTIONS[activation](gate) * value) @ layer.out_proj.weight.T)


@pytest.mark.parametrize("activation", FUNCTIONS)
def test_every_activation_comes_with_about_as_many_weights(activation):
    assert sum(p.numel() for p in MLP(96, activation=activation).parameters()) == 8 * 96**2


def test_an_unknown_activation_is_named_with_the_nearest():
    with pytest.raises(
        ArgumentError, match=r"'swigl', allowed are 'silu', 'gelu', 'relu2', .*\. Did you mean 'swiglu'"
    ):
        MLP(4, activation="swigl")


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 4), torch.zeros(2, 5, 3), torch.zeros(2, 5, 4, dtype=torch.int64)]
)
@pytest.mark.parametrize("layer", [Linear(4), MLP(4)], ids=["linear", "mlp"])
def test_a_wrong_input_is_refused_with_what_is_allowed(layer, x):
    with pytest.raises(ArgumentError, match=r"x has shape .* allowed is a floating \(B, L, d_model=4\)"):
        layer(x)
