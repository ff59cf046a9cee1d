from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from transformers.models.recurrent_gemma.configuration_recurrent_gemma import RecurrentGemmaConfig
from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRecurrentBlock

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.rg_lru import RGLRU


class TestRGLRU(LayerSuite):
    def make_layer(self):
        return RGLRU(self.d_model)


class TestRGLRUWithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return RGLRU(self.d_model, d_rnn=6, n_heads=2, d_conv=2, first_input="whole")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def griffin_by_the_paper(weights, x):
    """Equations 1 to 4 and figure 2 of arXiv:2402.19427 for one sequence x (L, D), token by token."""
    w = {name: tensor.numpy() for name, tensor in weights.items()}
    n_heads, block = w["rg_lru.input_gate_bias"].shape

    def gate(name, u):
        weight, bias = w[f"rg_lru.{name}_gate_weight"], w[f"rg_lru.{name}_gate_bias"]
        return sigmoid(u @ scipy.linalg.block_diag(*weight) + bias.ravel())

    past = np.zeros((w["conv_1d.weight"].shape[-1], n_heads * block))
    h, outputs = np.zeros(n_heads * block), []
    for x_t in x:
        u = w["linear_x.weight"] @ x_t + w["linear_x.bias"]
        past = np.vstack([past[1:], u])
        u = (w["conv_1d.weight"][:, 0].T * past).sum(0) + w["conv_1d.bias"]
        a = (1 / (1 + np.exp(w["rg_lru.recurrent_param"]))) ** (8 * gate("recurrent", u))
        h = a * h + np.sqrt(1 - a**2) * gate("input", u) * u
        branch = gelu(w["linear_y.weight"] @ x_t + w["linear_y.bias"])
        outputs.append(w["out_proj.weight"] @ (h * branch) + w["out_proj.bias"])
    return np.array(outputs)


def test_agrees_with_the_papers_recurrence():
    torch.manual_seed(0)
    layer = RGLRU(8, n_heads=4).double()
    x = torch.randn(2, 40, 8, dtype=torch.float64)
    expected = np.stack([griffin_by_the_paper(layer.state_dict(), row.numpy()) for row in x])
    np.testing.assert_allclose(layer(x).detach().numpy(), expected, rtol=1e-9, atol=1e-11)


@pytest.fixture
def published():
    """A recurrent block of RecurrentGemma with random weights, none of them zero."""
    config = RecurrentGemmaConfig(
        hidden_size=12, lru_width=12, num_attention_heads=3, conv1d_width=4, num_hidden_layers=1
    )
    block = RecurrentGemmaRecurrentBlock(config, 0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for parameter in block.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return block


def with_weights_of(block):
    layer = RGLRU(12, d_rnn=12, n_heads=3, first_input="whole")
    weights = {name.replace("linear_out", "out_proj"): w for name, w in block.state_dict().items()}
    layer.load_state_dict(weights)
    return layer


def run(block, x, start):
    """Run transformers' block, which keeps its state itself, on tokens that begin at `start`."""
    positions = torch.arange(start, start + x.shape[1]).expand(x.shape[:2])
    return block(x, positions, attention_mask=None, use_cache=True)[0]


@torch.no_grad()
@pytest.mark.parametrize("seq_len", [2, 21])
def test_agrees_with_transformers_and_so_does_the_state_after_it(published, seq_len):
    layer, x = with_weights_of(published), torch.randn(2, seq_len + 3, 12)
    start, rest = x[:, :seq_len], x[:, seq_len:]
    y, state = layer.extend(start, layer.init_state(2))
    torch.testing.assert_close(y, run(published, start, 0), rtol=1e-5, atol=1e-5)
    for t, x_t in enumerate(rest.unbind(1)):
        torch.testing.assert_close(state.h, published.rg_lru.recurrent_states, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(state.conv, published.conv1d_state.transpose(1, 2), rtol=1e-5, atol=1e-5)
        y_t, state = layer.step(x_t, state)
        expected = run(published, x_t[:, None], seq_len + t)[:, 0]
        torch.testing.assert_close(y_t, expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_only_the_first_input_differs_between_the_paper_and_transformers(published):
    whole = with_weights_of(published)
    scaled = RGLRU(12, d_rnn=12, n_heads=3)
    scaled.load_state_dict(whole.state_dict())
    x = torch.randn(2, 5, 12)
    assert not torch.allclose(whole(x)[:, 0], scaled(x)[:, 0], rtol=1e-2)
    state = scaled.init_state(2)
    torch.testing.assert_close(whole.extend(x, state._replace(fresh=~state.fresh))[0], scaled(x))


@torch.no_grad()
def test_an_empty_packed_sequence_stays_fresh():
    torch.manual_seed(0)
    layer, x = RGLRU(8, first_input="whole"), torch.randn(1, 7, 8)
    _, state = layer.extend(x[:, :4], layer.init_state(3), cu_seqlens=torch.tensor([0, 0, 4, 4]))
    assert state.fresh.tolist() == [True, False, True]
    y, state = layer.extend(x[:, 4:], state, cu_seqlens=torch.tensor([0, 1, 2, 3]))
    torch.testing.assert_close(y[:, 2:], layer(x[:, 6:]))
    torch.testing.assert_close(y[:, 1], layer(torch.cat([x[:, :4], x[:, 5:6]], dim=1))[:, 4])
    assert state.fresh.tolist() == [False, False, False]


def test_decays_begin_as_the_paper_says():
    torch.manual_seed(0)
    unit = RGLRU(512).rg_lru
    decay = torch.exp(-8 * torch.nn.functional.softplus(unit.recurrent_param))
    assert 0.9 * 0.9999 <= decay.min() < 0.903
    assert 0.996 < decay.max() <= 0.999 * 1.0001
    assert abs(decay.mean() - 0.9495) < 0.005


def test_a_gate_that_is_shut_has_a_finite_gradient():
    layer = RGLRU(8)
    torch.nn.init.constant_(layer.rg_lru.recurrent_gate_bias, -200.0)
    layer(torch.randn(1, 5, 8)).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())


def test_autocast_keeps_the_state_in_float32():
    torch.manual_seed(0)
    layer, x = RGLRU(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert state.h.dtype == state.conv.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_recurrence_in_float32():
    layer = RGLRU(16).bfloat16()
    y, state = layer.extend(torch.randn(2, 9, 16).bfloat16(), layer.init_state(2))
    assert (y.dtype, state.conv.dtype, state.h.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"d_model": 768}, 1024), ({"d_model": 8}, 16), ({"d_model": 30, "n_heads": 10}, 40)],
)
def test_states_are_a_third_more_than_the_width(given, expected):
    assert RGLRU(**given).d_rnn == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"d_conv": 0}, "d_conv is 0"),
        ({"n_heads": 0}, "n_heads is 0"),
        ({"d_rnn": 0}, "d_rnn is 0"),
        ({"d_rnn": 24}, "d_rnn is 24, allowed is a multiple of n_heads = 16"),
        ({"first_input": "hole"}, "first_input is 'hole', allowed are .* Did you mean 'whole'"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"rg-lru: {message}"):
        RGLRU(**{"d_model": 8, **wrong})
