from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.min_gru import MinGRU


class TestMinGRU(LayerSuite):
    def make_layer(self):
        return MinGRU(self.d_model)


class TestMinGRUWithEveryOptionChanged(LayerSuite):
    def make_layer(self):
        return MinGRU(self.d_model, expand=1, d_conv=0, candidate="plain")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(weights, name, x):
    return weights[f"{name}.weight"].numpy() @ x + weights[f"{name}.bias"].numpy()


def min_gru_by_the_paper(weights, x, *, positive):
    """Section 3.1.3 of arXiv:2410.01201 for one sequence x (L, D), token by token."""
    h, outputs = 0.0, []
    for x_t in x:
        z = sigmoid(affine(weights, "z_proj", x_t))
        c = affine(weights, "h_proj", x_t)
        c = np.where(c >= 0, c + 0.5, sigmoid(c)) if positive else c
        h = (1 - z) * h + z * c
        outputs.append(affine(weights, "out_proj", h))
    return np.array(outputs)


def convolved(weights, x):
    """The causal convolution of x (L, D) with taps (D, 1, K), newest last."""
    taps = weights["conv1d.weight"].numpy()[:, 0]
    padded = np.vstack([np.zeros((taps.shape[1] - 1, x.shape[1])), x])
    shifted = [taps[:, k] * padded[k : k + len(x)] for k in range(taps.shape[1])]
    return weights["conv1d.bias"].numpy() + sum(shifted)


@pytest.mark.parametrize("candidate", ["positive", "plain"])
@pytest.mark.parametrize("d_conv", [0, 3])
def test_agrees_with_the_papers_recurrence(candidate, d_conv):
    torch.manual_seed(0)
    layer = MinGRU(5, expand=3, d_conv=d_conv, candidate=candidate).double()
    x = torch.randn(2, 40, 5, dtype=torch.float64)
    weights = layer.state_dict()
    rows = [convolved(weights, row.numpy()) if d_conv else row.numpy() for row in x]
    expected = [min_gru_by_the_paper(weights, row, positive=candidate == "positive") for row in rows]
    np.testing.assert_allclose(layer(x).detach().numpy(), np.stack(expected), rtol=1e-10, atol=1e-12)


def test_agrees_with_the_papers_scan_in_log_space():
    """Appendix B: log h = a* + logcumsumexp(log z + log g(c) - a*), with a* = cumsum(log(1 - z))."""
    torch.manual_seed(0)
    layer = MinGRU(4, expand=1, d_conv=0).double()
    x = torch.randn(1, 30, 4, dtype=torch.float64)
    k, c = layer.z_proj(x), layer.h_proj(x)
    log_g = torch.where(c >= 0, (torch.relu(c) + 0.5).log(), -torch.nn.functional.softplus(-c))
    a = (-torch.nn.functional.softplus(k)).cumsum(1)
    h = (a + torch.logcumsumexp(-torch.nn.functional.softplus(-k) + log_g - a, dim=1)).exp()
    torch.testing.assert_close(layer(x), layer.out_proj(h), rtol=1e-10, atol=1e-12)


def test_positive_candidates_keep_the_state_positive():
    torch.manual_seed(0)
    layer = MinGRU(8)
    _, state = layer.extend(10 * torch.randn(3, 50, 8), layer.init_state(3))
    assert (state.h > 0).all()


def test_what_an_open_gate_keeps_is_exact():
    """1 - z is 2e-9 here, which float32 cannot tell from 0 as a difference."""
    layer = MinGRU(1, expand=1, d_conv=0, candidate="plain")
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(layer.z_proj.bias, 20.0)
    _, after = layer.extend(torch.zeros(1, 1, 1), layer.init_state(1)._replace(h=torch.ones(1, 1)))
    assert after.h.item() == pytest.approx(sigmoid(-20.0), rel=1e-6)


def test_autocast_keeps_the_state_in_float32():
    torch.manual_seed(0)
    layer, x = MinGRU(16), torch.randn(2, 9, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer.extend(x, layer.init_state(2))
    y.float().sum().backward()
    assert y.dtype == torch.bfloat16
    assert state.h.dtype == state.conv.dtype == torch.float32
    torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


def test_half_precision_states_keep_the_recurrence_in_float32():
    layer = MinGRU(16).bfloat16()
    y, state = layer.extend(torch.randn(2, 9, 16).bfloat16(), layer.init_state(2))
    assert (y.dtype, state.conv.dtype, state.h.dtype) == (torch.bfloat16, torch.bfloat16, torch.float32)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"d_model": 0}, "d_model is 0"),
        ({"expand": 0}, "expand is 0"),
        ({"d_conv": -1}, "d_conv is -1, allowed is >= 0"),
        ({"candidate": "plane"}, "candidate is 'plane', allowed are .* Did you mean 'plain'"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"min-gru: {message}"):
        MinGRU(**{"d_model": 8, **wrong})
