from __future__ import annotations

import numpy as np
import pytest
import torch

from helix_kernel.errors import ArgumentError
from helix_kernel.testing.layers import LayerSuite
from helix_ssm.layers.inner_filters import LongFilter, MediumFilter, ShortFilter, grouped_conv
from helix_ssm.layers.multi_hybrid import MultiHybrid

OPERATORS = ("short-explicit", "medium-regularized", "long-implicit")


class TestShortExplicit(LayerSuite):
    def make_layer(self):
        return MultiHybrid(self.d_model, operator="short-explicit", n_groups=2, filter_len=5)


class TestMediumRegularized(LayerSuite):
    def make_layer(self):
        return MultiHybrid(self.d_model, n_groups=4, filter_len=6)


class TestMediumRegularizedLongerThanTheSequence(LayerSuite):
    def make_layer(self):
        return MultiHybrid(self.d_model)


class TestLongImplicit(LayerSuite):
    def make_layer(self):
        return MultiHybrid(self.d_model, operator="long-implicit", n_groups=2, d_state=3)


def inner_kernel(inner, seq_len):
    """Return the inner filter of each channel (D, seq_len) by the paper's formulas, in numpy."""
    w = {name: tensor.numpy() for name, tensor in inner.state_dict().items()}
    groups, h = inner.n_groups, np.zeros((inner.n_groups, seq_len))
    t = np.arange(seq_len)
    if isinstance(inner, LongFilter):
        pole = np.exp(-np.exp(w["A_log"]))
        h = sum(w["R"][:, [n]] * pole[:, [n]] ** t for n in range(inner.d_state))
    else:
        n = min(seq_len, inner.filter_len)
        h[:, :n] = w["weight"][:, :n]
        if isinstance(inner, MediumFilter):
            alpha = np.geomspace(0.1, 10, groups) / inner.filter_len
            h = h * np.exp(-alpha[:, None] * t)
    return np.repeat(h, inner.d_model // groups, axis=0)


@pytest.mark.parametrize("operator", OPERATORS)
def test_agrees_with_the_papers_equation_by_numpys_convolution(operator):
    torch.manual_seed(0)
    layer = MultiHybrid(8, operator=operator, n_groups=2).double()
    x = torch.randn(1, 300, 8, dtype=torch.float64)
    w = {name: tensor.numpy() for name, tensor in layer.state_dict().items()}
    u = x[0].numpy() @ w["in_proj.weight"].T
    taps = w["conv1d.weight"][:, 0, ::-1]
    q, k, v = np.split(np.stack([np.convolve(u[:, c], taps[c])[:300] for c in range(24)], 1), 3, axis=1)
    h, kv = inner_kernel(layer.inner, 300), k * v
    inner = np.stack([np.convolve(kv[:, c], h[c])[:300] for c in range(8)], 1)
    expected = (q * inner) @ w["out_proj.weight"].T
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("seq_len", [0, 1, 2, 5, 6, 7, 12, 40])
@pytest.mark.parametrize("filter_len", [1, 2, 6])
def test_grouped_conv_is_numpys_convolution(seq_len, filter_len):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, filter_len - 1 + seq_len, 6, generator=generator, dtype=torch.float64)
    taps = torch.randn(3, filter_len, generator=generator, dtype=torch.float64)
    y = grouped_conv(inputs, taps, seq_len)
    assert y.shape == (2, seq_len, 6)
    for b, c in np.ndindex(2, 6 if seq_len else 0):
        expected = np.convolve(inputs[b, :, c], taps[c // 2], mode="valid")
        np.testing.assert_allclose(y[b, :, c], expected, rtol=1e-10, atol=1e-12)


def test_channels_of_a_group_share_their_filter():
    torch.manual_seed(0)
    for operator in OPERATORS:
        inner = MultiHybrid(6, operator=operator, n_groups=2).inner
        impulse = torch.zeros(1, 20, 6)
        impulse[:, 0] = 1
        response = inner(impulse)[0]
        for c in range(6):
            torch.testing.assert_close(response[:, c], response[:, c // 3 * 3], rtol=1e-5, atol=1e-6)
        assert (response[:, 0] - response[:, 3]).abs().max() > 0.1


def test_defaults_are_those_of_evo_2():
    short, medium, long = (MultiHybrid(32, operator=operator).inner for operator in OPERATORS)
    assert isinstance(short, ShortFilter)
    assert short.weight.shape == (2, 7)
    assert isinstance(medium, MediumFilter)
    assert medium.weight.shape == (2, 128)
    assert isinstance(long, LongFilter)
    assert long.R.shape == (32, 16)
    assert MultiHybrid(12).inner.n_groups == 3  # groups of 4, the most channels that 12 and 16 share


def test_the_state_is_of_constant_size():
    for operator in OPERATORS:
        layer = MultiHybrid(8, operator=operator)
        state = layer.init_state(2)
        shapes = [tensor.shape for tensor in state]
        for _ in range(3):
            _, state = layer.step(torch.randn(2, 8), state)
            assert [tensor.shape for tensor in state] == shapes


def test_long_filters_begin_with_unit_energy():
    torch.manual_seed(0)
    inner = LongFilter(512, n_groups=512, d_state=1)
    assert 0.8 < inner.kernel(8000).square().sum(-1).mean() < 1.2


def test_long_modes_stay_stable_however_they_are_trained():
    inner = LongFilter(4, n_groups=4, d_state=4)
    torch.nn.init.normal_(inner.A_log, std=3)
    assert (inner._system()[0] < 0).all()


def test_autocast_keeps_the_inner_convolution_in_float32():
    torch.manual_seed(0)
    for operator in OPERATORS:
        layer, x = MultiHybrid(16, operator=operator), torch.randn(2, 40, 16)
        expected = layer.inner(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.inner(x).equal(expected)
            y = layer(x)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.float(), layer(x), rtol=0.1, atol=0.05)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operator": "long"}, "operator is 'long', allowed are 'short-explicit', "),
        ({"d_model": 0}, "d_model is 0"),
        ({"filter_len": 0}, "filter_len is 0"),
        ({"d_state": 0}, "d_state is 0"),
        ({"n_groups": 0}, "n_groups is 0"),
        ({"n_groups": 3}, "n_groups is 3, allowed is a divisor of d_model=8"),
        ({"d_conv": 0}, "d_conv is 0"),
    ],
)
def test_a_wrong_argument_is_named(wrong, message):
    with pytest.raises(ArgumentError, match=f"multi-hybrid: {message}"):
        MultiHybrid(**{"d_model": 8, **wrong})
