from __future__ import annotations

import pytest
import torch
from torch import nn

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.rnn import RNN

TORCHS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


class TestLSTM(LayerSuite):
    def make_layer(self):
        return RNN(self.d_model)


class TestGRUOfTwoLayers(LayerSuite):
    def make_layer(self):
        return RNN(self.d_model, cell="gru", n_layers=2, d_hidden=5)


class TestRNNWithoutBiases(LayerSuite):
    def make_layer(self):
        return RNN(self.d_model, cell="rnn", bias=False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("cell", TORCHS)
def test_it_is_torchs_own(cell, bias):
    torch.manual_seed(0)
    layer = RNN(4, cell=cell, n_layers=2, d_hidden=6, bias=bias)
    own = TORCHS[cell](4, 6, 2, bias=bias, batch_first=True)
    own.load_state_dict(layer.rnn.state_dict())
    x = torch.randn(3, 9, 4)
    y, last = own(x)
    torch.testing.assert_close(layer(x), layer.out_proj(y))
    _, state = layer.extend(x, layer.init_state(3))
    last = last if cell == "lstm" else (last,)
    for found, expected in zip(state, last, strict=True):
        torch.testing.assert_close(found, expected.transpose(0, 1))


def test_the_state_is_batch_first_and_of_constant_size():
    layer = RNN(4, n_layers=3, d_hidden=5)
    state = layer.init_state(2)
    for _ in range(2):
        assert [tensor.shape for tensor in state] == [(2, 3, 5)] * 2
        _, state = layer.step(torch.randn(2, 4), state)


@pytest.mark.parametrize(
    "cell",
    [
        pytest.param(
            "lstm",
            marks=pytest.mark.xfail(
                reason="AOT autograd of PyTorch 2.13 cannot save what oneDNN's LSTM leaves out",
                raises=AssertionError,
            ),
        ),
        "gru",
        "rnn",
    ],
)
def test_training_can_be_compiled(cell):
    torch.manual_seed(0)
    layer, x = RNN(4, cell=cell), torch.randn(2, 5, 4)
    layer(x).square().sum().backward()
    expected = {name: p.grad.clone() for name, p in layer.named_parameters()}
    layer.zero_grad()
    torch.compiler.reset()
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x).square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"cell": "lstn"}, "cell is 'lstn', allowed are 'lstm', 'gru', 'rnn'. Did you mean 'lstm'"),
        ({"d_model": 0}, "d_model is 0"),
        ({"n_layers": 0}, "n_layers is 0"),
        ({"d_hidden": 0}, "d_hidden is 0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"rnn: {message}"):
        RNN(**{"d_model": 8, **wrong})
